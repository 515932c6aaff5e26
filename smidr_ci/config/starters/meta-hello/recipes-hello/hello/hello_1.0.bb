SUMMARY = "Says hello"
SRC_URI = "file://hello.c"

do_compile() {
    gcc -O2 -Wall -Werror -o hello ${S}/hello.c
}

do_deploy() {
    install -m 0755 hello ${DEPLOY_DIR}/hello
}
