SUMMARY = "Stands for update-alternatives; no recipe here has alternatives"
LICENSE = "MIT"
inherit native
PROVIDES += "virtual/update-alternatives-native"
