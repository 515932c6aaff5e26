SUMMARY = "The first process: mounts, greets, powers off"

SRC_URI = "file://init.c"

# Which console there is depends on the machine.
PACKAGE_ARCH = "${MACHINE}"

do_compile() {
    ${CC} ${CFLAGS} ${LDFLAGS} -DCONSOLE='"${MACHINE_CONSOLE}"' -o init "${S}/init.c"
}

do_install() {
    install -D -m 0755 init "${D}/init"
}
