SUMMARY = "A root filesystem with one package"
LICENSE = "MIT"
inherit hostcc-image
IMAGE_INSTALL = "sensor"
