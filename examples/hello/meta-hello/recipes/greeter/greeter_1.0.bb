SUMMARY = "The library that greets, from a git repository"

SRC_URI = "git://${HELLO_SOURCES}/greeter.git;protocol=file;branch=main;destsuffix=greeter"
SRCREV = "1fc87c8b9004b1ac41161589ad4d4e3180aa509d"
S = "${SOURCES}/greeter"

do_compile() {
    make -C ${S} ${PARALLEL_MAKE} OUT="${B}" CC="${CC}" AR="${AR}" CFLAGS="${CFLAGS}"
}

do_install() {
    install -D -m 0644 libgreet.a "${D}/usr/lib/libgreet.a"
    install -D -m 0644 "${S}/greet.h" "${D}/usr/include/greet.h"
}
