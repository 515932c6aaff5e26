SUMMARY = "A program for the build host, with a patch"
inherit local-source native
FILESEXTRAPATHS:prepend := "${THISDIR}/greeter:"
SRC_URI += "file://0001-Greet-smidr.patch"
PATCHTOOL = "patch"
do_compile() {
    ${CC} ${CFLAGS} ${LDFLAGS} -o greeter greeter.c
}
do_install() {
    install -D -m 0755 greeter ${D}${bindir}/greeter
}
