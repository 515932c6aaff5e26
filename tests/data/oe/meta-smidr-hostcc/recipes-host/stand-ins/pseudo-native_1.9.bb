SUMMARY = "Stands for the builder image's pseudo"
LICENSE = "MIT"
inherit native
PROVIDES += "virtual/fakeroot-native"
