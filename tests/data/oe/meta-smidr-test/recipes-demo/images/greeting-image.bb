SUMMARY = "Deploys what a native program says"
LICENSE = "MIT"
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS = "greeter-native"
inherit nopackages deploy
PACKAGE_ARCH = "${MACHINE_ARCH}"
do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_install[noexec] = "1"
do_compile() {
    greeter > ${B}/greeting.txt
}
do_deploy() {
    install -m 0644 ${B}/greeting.txt ${DEPLOYDIR}/greeting-${MACHINE}.txt
    ln -sf greeting-${MACHINE}.txt ${DEPLOYDIR}/greeting.txt
}
addtask deploy after do_compile before do_build
deltask do_populate_sysroot
