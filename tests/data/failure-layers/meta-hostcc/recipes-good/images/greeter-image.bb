SUMMARY = "An image that builds"
LICENSE = "MIT"
inherit small-image
IMAGE_INSTALL = "greeter"
