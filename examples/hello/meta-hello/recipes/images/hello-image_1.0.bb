SUMMARY = "Boots, greets, powers off"

inherit image

IMAGE_INSTALL ?= "base-files hello init"
