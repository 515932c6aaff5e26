SUMMARY = "A program that builds"
inherit own-source
do_compile() {
    ${CC} ${CFLAGS} ${LDFLAGS} -o greeter greeter.c
}
do_install() {
    install -D -m 0755 greeter ${D}${bindir}/greeter
}
