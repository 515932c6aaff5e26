SUMMARY = "The program that greets whoever boots the image"
DEPENDS = "greeter"

SRC_URI = "file://hello.c"

do_compile() {
    ${CC} ${CPPFLAGS} ${CFLAGS} ${LDFLAGS} -o hello "${S}/hello.c" -lgreet
}

do_install() {
    install -D -m 0755 hello "${D}/usr/bin/hello"
}
