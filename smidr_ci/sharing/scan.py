"""Finds what a cache holds that its store may not: folder by folder, so that memory stays flat.

Builds write to the cache meanwhile: by handle, following no symlink.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.caches.units import DAMAGED
from smidr_ci.caches.walk import MAX_DEPTH, Entry, chunks_of, open_folder, opened
from smidr_ci.cancel import CancelToken
from smidr_ci.files import DELETING_PREFIX
from smidr_ci.sharing.ledger import Ledger, Mark
from smidr_ci.sharing.names import COMPANIONS, DOWNLOADS, is_shareable

__all__ = ["SharedFolder", "SharedTree", "new_in"]

_DONE: Final = ".done"


@dataclass(frozen=True)
class SharedTree:
    """One cache of this host: its name, and its directory."""

    cache: str
    root: Path


@dataclass(frozen=True)
class SharedFolder:
    """A folder that changed, and what changed in it."""

    tree: SharedTree
    path: bytes
    """Below the root; empty for the root itself."""
    names: tuple[str, ...]
    """Objects or downloads that may be new."""
    mark: Mark
    """To be noted when all of them were offered."""

    def inner(self, name: str) -> str:
        """Path of a file below the root."""
        return f"{os.fsdecode(self.path)}/{name}" if self.path else name


def new_in(
    tree: SharedTree,
    ledger: Ledger,
    cancel: CancelToken,
    now_ns: Callable[[], int] = time.time_ns,
) -> Iterator[SharedFolder]:
    """Folders that changed since they were last offered.

    Raises `OSError` for a root that can't be read, `sqlite3.Error` and `CancelledError`.
    """
    walk = _Walk(tree, os.path.realpath(tree.root), ledger, cancel, now_ns)
    with contextlib.suppress(FileNotFoundError), opened(tree.root) as fd:
        yield from walk.visit(fd, b"", 0)


@dataclass(frozen=True)
class _Walk:
    tree: SharedTree
    root: str
    ledger: Ledger
    cancel: CancelToken
    now_ns: Callable[[], int]

    def visit(self, fd: int, path: bytes, depth: int) -> Iterator[SharedFolder]:
        self.cancel.raise_if_cancelled()
        known = self.ledger.mark(self.tree.cache, self.root, path)
        mtime_ns, looked_ns = os.fstat(fd).st_mtime_ns, self.now_ns()
        names: list[str] = []
        inner: list[str] = []
        since_ns = 0 if known is None else known.since_ns
        is_changed = known is None or not known.is_current(mtime_ns)
        for files, folders in chunks_of(fd):
            if is_changed:
                names += self._new(files, fd, since_ns)
            inner += [name for name, _ in folders if _is_entered(self.tree.cache, path, name)]
        if is_changed:
            mark = Mark(mtime_ns, looked_ns, is_leaf=not inner)
            yield SharedFolder(self.tree, path, tuple(sorted(names)), mark)
        for name in inner if depth < MAX_DEPTH else ():
            below = path + b"/" + os.fsencode(name) if path else os.fsencode(name)
            if self._is_unchanged_leaf(fd, name, below):
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                inner_fd = open_folder(name, fd)
                try:
                    yield from self.visit(inner_fd, below, depth + 1)
                finally:
                    os.close(inner_fd)

    def _new(self, files: list[Entry], fd: int, since_ns: int) -> Iterator[str]:
        for name, info in files:
            if not stat.S_ISREG(info.st_mode) or not is_shareable(self.tree.cache, name):
                continue
            beside = [_changed_ns(fd, f"{name}{suffix}") for suffix in self._suffixes]
            # BitBake writes downloads in place, and then says that they are done.
            is_finished = self.tree.cache != DOWNLOADS or beside[0] > 0
            if is_finished and max(info.st_ctime_ns, *beside) >= since_ns:
                yield name

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return (_DONE,) if self.tree.cache == DOWNLOADS else COMPANIONS

    def _is_unchanged_leaf(self, fd: int, name: str, path: bytes) -> bool:
        """Most folders hold no others: one call tells that nothing has come."""
        known = self.ledger.mark(self.tree.cache, self.root, path)
        if known is None or not known.is_leaf:
            return False
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return True
        return known.is_current(info.st_mtime_ns)


def _changed_ns(fd: int, name: str) -> int:
    """0 for what is not there."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime_ns
    except OSError:
        return 0


def _is_entered(cache: str, above: bytes, name: str) -> bool:
    if cache == DOWNLOADS:
        return False  # repositories go as tarballs, other fetchers' folders not at all
    is_damaged = name == DAMAGED and not above
    return not is_damaged and not name.startswith(DELETING_PREFIX)
