# For recipes whose source is the folder src beside them.
LICENSE ?= "MIT"
LIC_FILES_CHKSUM ?= "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"
SRC_URI = "file://src"
# Newer releases refuse S = WORKDIR, older ones have no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/src"
