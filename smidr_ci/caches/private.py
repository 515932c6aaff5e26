"""The caches of an untrusted build: the shared ones read-only, and private ones in their place.

The private ones stand where a trusted build has the shared ones, so that signatures and parse
caches are the same.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.caches.layout import DOWNLOADS_MOUNT, SSTATE_MOUNT, CacheDirs
from smidr_ci.caches.seed import seed_downloads
from smidr_ci.containers.runtime import Mount, User
from smidr_ci.containers.user import own

__all__ = [
    "PRIVATE_CACHE",
    "SHARED_DOWNLOADS_MOUNT",
    "SHARED_SSTATE_MOUNT",
    "mirror_line",
    "private_mounts",
    "private_sstate",
    "stock",
]

PRIVATE_CACHE: Final = "cache"
"""Name of the directory among a workspace's private ones."""
SHARED_DOWNLOADS_MOUNT: Final = PurePosixPath("/smidr/shared/downloads")
SHARED_SSTATE_MOUNT: Final = PurePosixPath("/smidr/shared/sstate")
_DOWNLOADS: Final = "downloads"
_SSTATE: Final = "sstate"


def private_mounts(shared: CacheDirs, private: Path, *, may_read: bool) -> tuple[Mount, ...]:
    """Where an untrusted build sees them; `may_read` says whether it sees the shared ones."""
    own_ones = (
        Mount(private / _DOWNLOADS, DOWNLOADS_MOUNT, writable=True),
        Mount(private / _SSTATE, SSTATE_MOUNT, writable=True),
    )
    if not may_read:
        return own_ones
    return (
        *own_ones,
        Mount(shared.downloads.resolve(), SHARED_DOWNLOADS_MOUNT),
        Mount(shared.sstate.resolve(), SHARED_SSTATE_MOUNT),
    )


def private_sstate(private: Path) -> Path:
    """SSTATE_DIR among the private caches."""
    return private / _SSTATE


def mirror_line() -> str:
    """For SSTATE_MIRRORS: BitBake links what it finds there into its own SSTATE_DIR."""
    return f"file://.* file://{SHARED_SSTATE_MOUNT}/PATH"


def stock(private: Path, shared: CacheDirs, user: User, *, may_read: bool) -> None:
    """Make the directories, and have the private downloads lead to the shared ones.

    What an earlier build left there stays. Raises `OSError`.
    """
    for name in (_DOWNLOADS, _SSTATE):
        folder = private / name
        folder.mkdir(mode=0o755, exist_ok=True)
        own(folder, user)
    if may_read:
        seed_downloads(shared.downloads, private / _DOWNLOADS, SHARED_DOWNLOADS_MOUNT, user)
