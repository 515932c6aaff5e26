SUMMARY = "Stands for the container's pseudo"
LICENSE = "MIT"
inherit native
PROVIDES += "virtual/fakeroot-native"
