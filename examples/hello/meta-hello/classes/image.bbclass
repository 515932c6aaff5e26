# An image: the files of some recipes as an initial RAM file system that Linux can boot.

PACKAGE_ARCH = "${MACHINE}"
IMAGE_INSTALL ??= ""
IMAGE_ROOTFS = "${WORKDIR}/rootfs"
IMAGE_NAME = "${PN}-${MACHINE}"
DEPLOYDIR = "${WORKDIR}/deploy"

# Only needed to compile against.
IMAGE_SKIP = "include *.a components"

deltask fetch
deltask unpack
deltask compile
deltask install
deltask populate_sysroot
deltask populate_sysroot_setscene
SSTATETASKS = "do_deploy"

python () {
    needed = ["%s:do_populate_sysroot" % name for name in d.getVar("IMAGE_INSTALL").split()]
    d.appendVarFlag("do_rootfs", "depends", " " + " ".join(needed))
}

addtask rootfs
do_rootfs[cleandirs] = "${IMAGE_ROOTFS} ${DEPLOYDIR}"
python do_rootfs() {
    lines = []
    skip = d.getVar("IMAGE_SKIP").split()
    for name in sorted(set(d.getVar("IMAGE_INSTALL").split())):
        component = copy_component(d, name, d.getVar("IMAGE_ROOTFS"), skip)
        with open(os.path.join(component, "usr/share/components", name)) as line:
            lines.append(line.read())
    with open(d.expand("${DEPLOYDIR}/${IMAGE_NAME}.manifest"), "w") as manifest:
        manifest.writelines(lines)
}

addtask image after do_rootfs
do_image[dirs] = "${IMAGE_ROOTFS}"
do_image() {
    test -x init || bbfatal "${PN} has no executable /init: add the recipe init to IMAGE_INSTALL"
    mkdir -p dev proc sys
    find . -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +
    find . -print0 | LC_ALL=C sort -z \
        | cpio --null --create --format=newc --owner=+0:+0 --reproducible --quiet \
        | gzip --no-name -9 > "${DEPLOYDIR}/${IMAGE_NAME}.cpio.gz"
    ln -sf "${IMAGE_NAME}.cpio.gz" "${DEPLOYDIR}/${PN}.cpio.gz"
    bbnote "${IMAGE_NAME}.cpio.gz has $(stat --format=%s "${DEPLOYDIR}/${IMAGE_NAME}.cpio.gz") bytes"
}

addtask deploy after do_image before do_build
do_deploy[sstate-inputdir] = "${DEPLOYDIR}"
do_deploy[sstate-outputdir] = "${DEPLOY_DIR_IMAGE}"
do_deploy() {
    :
}

addtask do_deploy_setscene
python do_deploy_setscene() {
    sstate_restore(d, "do_deploy")
}
