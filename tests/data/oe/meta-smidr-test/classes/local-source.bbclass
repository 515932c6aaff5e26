# Sources that lie beside the recipe, in a folder `source`.
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"
SRC_URI = "file://source"
# UNPACKDIR is new in scarthgap; from styhead on S must not be WORKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/source"
