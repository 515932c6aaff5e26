SUMMARY = "Nothing in the test image has alternatives"
LICENSE = "MIT"
inherit native
PROVIDES += "virtual/update-alternatives-native"
