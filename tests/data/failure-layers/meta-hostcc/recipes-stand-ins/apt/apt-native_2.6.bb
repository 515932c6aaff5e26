SUMMARY = "Stands for the container's apt: the configuration that do_rootfs fills in"
inherit own-source native
do_install() {
    install -D -m 0644 apt.conf.sample ${D}${sysconfdir}/apt/apt.conf.sample
}
