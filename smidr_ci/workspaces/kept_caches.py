"""Private caches between the builds of one pull request, within the operator's quota.

A build takes the directory away by rename, and brings it back at its end: two builds never use one
at a time, and one that is never brought back is only lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.errors import InternalError
from smidr_ci.files import DELETING_PREFIX, MARKER_NAME, make_marked_dir, set_aside_marked_tree
from smidr_ci.workspaces.removal import delete_detached, disk_usage

__all__ = ["KeptCache", "KeptCaches"]

_log = logging.getLogger(__name__)

_CONTENT: Final = "cache"
_SIZE: Final = "size"


@dataclass(frozen=True)
class KeptCache:
    """One of them; `name` tells nothing of whose it is, `use_s` is a Unix time."""

    name: str
    use_s: float
    size_bytes: int


class KeptCaches:
    """`<root>/<digest of the key>/cache`; safe among processes, and nothing here raises.

    `delete` takes away a tree that was renamed.
    """

    def __init__(
        self, root: Path, size_bytes: int, *, delete: Callable[[Path], object] = delete_detached
    ) -> None:
        self._root = root
        self._size_bytes = size_bytes
        self._delete = delete

    def take(self, key: str, target: Path) -> bool:
        """Put what was kept for the key in place of the empty directory `target`."""
        if not key:
            return False
        try:
            (self._folder(key) / _CONTENT).rename(target)
        except OSError:  # there is none, or another build has it
            return False
        return True

    def bring_back(self, key: str, source: Path) -> bool:
        """Keep a directory for the key, in place of an older one; the oldest go over the quota.

        An empty directory takes its place. Says whether it was kept.
        """
        if not key:
            return False
        try:
            folder = make_marked_dir(self._folder(key), 0o700)
            size = disk_usage(source)
            if size > self._size_bytes:
                return False
            self._clear(folder)
            info = source.stat()
            source.rename(folder / _CONTENT)
            (folder / _SIZE).write_text(str(size), encoding="ascii")
            os.utime(folder)
            source.mkdir(mode=0o755)
            if os.geteuid() == 0:
                os.chown(source, info.st_uid, info.st_gid)
            self._trim()
        except (OSError, InternalError) as error:
            _log.warning("the private cache of %s is not kept: %s", key, error)
            return False
        return True

    def known(self) -> list[KeptCache]:
        """What is kept and no build has at the moment, least recently used first."""
        return [KeptCache(path.name, use_s, size) for use_s, path, size in self._all()]

    def sizes(self) -> dict[str, int]:
        """Folder name -> bytes on disk of what is kept, least recently used first."""
        return {path.name: size for _, path, size in self._all()}

    def _folder(self, key: str) -> Path:
        return self._root / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _clear(self, folder: Path) -> None:
        """Make room for a newer directory of the same key."""
        old = folder / _CONTENT
        if old.exists():
            doomed = self._root / f"{DELETING_PREFIX}{folder.name}-{os.getpid()}"
            old.rename(doomed)
            self._delete(doomed)

    def _trim(self) -> None:
        kept = self._all()
        total = sum(size for _, _, size in kept)
        for _, path, size in kept:
            if total <= self._size_bytes:
                break
            doomed = set_aside_marked_tree(path, self._root)
            if doomed is not None:
                self._delete(doomed)
            total -= size

    def _all(self) -> list[tuple[float, Path, int]]:
        found = []
        for path in self._root.iterdir() if self._root.is_dir() else ():
            with contextlib.suppress(OSError, ValueError):
                if (path / MARKER_NAME).is_file() and (path / _CONTENT).is_dir():
                    size = int((path / _SIZE).read_text(encoding="ascii"))
                    found.append((path.stat().st_mtime, path, size))
        return sorted(found)
