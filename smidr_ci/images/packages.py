"""Debian packages that a builder image for OpenEmbedded needs.

What OE-Core's sanity check (`HOSTTOOLS`, `SANITY_REQUIRED_UTILITIES`) asks for on Debian 12, plus
what recipes of the big vendor layers use without saying so.
"""

from __future__ import annotations

from typing import Final

__all__ = ["YOCTO_HOST_PACKAGES"]

_TOOLS: Final = (
    "bzip2",
    "chrpath",
    "cpio",
    "debianutils",
    "diffstat",
    "file",
    "gawk",
    "git",
    "git-lfs",
    "lz4",
    "patch",
    "procps",
    "quilt",
    "rsync",
    "socat",
    "texinfo",
    "unzip",
    "wget",
    "xz-utils",
    "zip",
    "zstd",
)
_COMPILER: Final = ("build-essential", "g++", "gcc", "libc6-dev", "make", "rpcsvc-proto")
_PYTHON: Final = (
    "python3",
    "python3-git",
    "python3-jinja2",
    "python3-pexpect",
    "python3-pip",
    "python3-subunit",
    "python3-websockets",
)
_SYSTEM: Final = (
    "ca-certificates",
    "iproute2",
    "iputils-ping",
    "libacl1",
    "locales",
    "openssh-client",
)

YOCTO_HOST_PACKAGES: Final = tuple(sorted({*_TOOLS, *_COMPILER, *_PYTHON, *_SYSTEM}))
"""The starter list."""
