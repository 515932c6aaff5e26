SUMMARY = "The message of the day; not in the image unless IMAGE_INSTALL asks for it"

do_compile() {
    echo "Have a lot of fun with ${DISTRO_NAME}." > motd
}

do_install() {
    install -D -m 0644 motd "${D}/etc/motd"
}
