SUMMARY = "What the image says about itself"

SRC_URI = "file://os-release.in"
PACKAGE_ARCH = "${MACHINE}"

do_compile() {
    sed -e 's|@NAME@|${DISTRO_NAME}|' -e 's|@VERSION@|${DISTRO_VERSION}|' -e 's|@MACHINE@|${MACHINE}|' \
        "${S}/os-release.in" > os-release
    echo "${DISTRO_HOSTNAME}" > hostname
}

do_install() {
    install -D -m 0644 os-release "${D}/usr/lib/os-release"
    install -D -m 0644 hostname "${D}/etc/hostname"
    ln -s ../usr/lib/os-release "${D}/etc/os-release"
}
