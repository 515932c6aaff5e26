# An image whose do_rootfs is run by the builder image's apt.
inherit image
IMAGE_FSTYPES = "tar.gz"
IMAGE_FEATURES = ""
PACKAGE_INSTALL = "${IMAGE_INSTALL}"
LINGUAS_INSTALL = ""
deltask do_populate_sdk
deltask do_populate_sdk_ext
deltask do_sdk_depends
deltask do_testimage
deltask do_testsdk

make_apt_directories() {
    mkdir -p ${IMAGE_ROOTFS}/var/lib/apt
    mkdir -p ${WORKDIR}/apt/cache/archives/partial ${WORKDIR}/apt/lists/partial
}
DEB_PREPROCESS_COMMANDS = "make_apt_directories;"
