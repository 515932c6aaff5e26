SUMMARY = "Stands for the container's apt: the configuration that do_rootfs fills in"
LICENSE = "MIT"
inherit native
FILESEXTRAPATHS:prepend := "${THISDIR}:"
SRC_URI = "file://apt.conf.sample"
do_install() {
    install -D -m 0644 ${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/apt.conf.sample ${D}${sysconfdir}/apt/apt.conf.sample
}
