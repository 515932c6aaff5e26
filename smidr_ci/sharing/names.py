"""Where a file of a cache lies in the store, and which files may go there."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.caches.units import SstateName
from smidr_ci.stores.keys import object_key

__all__ = ["COMPANIONS", "DOWNLOADS", "SSTATE", "is_repository_tarball", "is_shareable", "key_of"]

SSTATE: Final = "sstate"
DOWNLOADS: Final = "downloads"
COMPANIONS: Final = (".siginfo", ".sig")
"""What describes an sstate object and goes before it."""

# bb/fetch2: git.py and hg.py, what BB_GENERATE_MIRROR_TARBALLS makes.
_TARBALL: Final = re.compile(r"(?:git2|gitshallow|hg)_[^/]+\.tar\.gz")
_UNFINISHED: Final = (".done", ".lock", ".tmp", ".bad")


def key_of(cache: str, path: str) -> str:
    """The store's key of a file, by its path below the cache; raises ValueError for no path."""
    return object_key(cache, path)


def is_shareable(cache: str, name: str) -> bool:
    """Whether a file of this name may be a whole object, or download."""
    if cache == SSTATE:
        return SstateName.parse(name) is not None
    return not name.startswith(".") and not name.endswith(_UNFINISHED)


def is_repository_tarball(name: str) -> bool:
    """Whether a download is BitBake's copy of a repository, which changes and has no checksum."""
    return _TARBALL.fullmatch(name) is not None
