"""Private downloads that lead to the shared ones, so that BitBake's fetchers find all they know.

Files become symlinks into a read-only mount, and bare git repositories borrow the objects of the
shared ones (gitrepository-layout(5), `objects/info/alternates`). A `file:` mirror would find no git
repositories, only tarballs of them. Hard links would be a way to write to the shared files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.caches.units import DAMAGED
from smidr_ci.caches.walk import chunks_of, open_folder, opened
from smidr_ci.containers.runtime import User

__all__ = ["seed_downloads"]

_GIT: Final = "git2"
_NOT_BY_LINK: Final = frozenset({"svn", "hg", "bzr", "cvs", "p4", "osc", "repo", "ccrc", DAMAGED})
"""Working copies that their tools write to (SVNDIR and the like): they are fetched again."""
_UNFINISHED: Final = (".lock", ".tmp", ".bad")
_MAX_DEPTH: Final = 6
_DONE: Final = ".done"
_MAX_STAMP: Final = 64 * 1024
_MAX_REFS: Final = 128 * 1024**2
_COPIED: Final = ("HEAD", "config", "packed-refs", "shallow")
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def seed_downloads(shared: Path, private: Path, mounted: PurePosixPath, user: User) -> None:
    """Fill `private`, which a stranger may have written to; `shared` is seen at `mounted`.

    What is there already stays, but links, which are made anew. Raises `OSError`.
    """
    seeder = _Seeder((user.uid, user.gid) if os.geteuid() == 0 else None)
    with opened(shared) as source, opened(private) as target:
        seeder.fill(source, target, mounted, _MAX_DEPTH)


class _Seeder:
    """By handles only, and following no symlink: both trees are what builds left."""

    def __init__(self, owner: tuple[int, int] | None) -> None:
        self._owner = owner

    def fill(self, source: int, target: int, mounted: PurePosixPath, depth: int) -> None:
        _drop_links(target)
        for files, folders in chunks_of(source):
            for name, info in files:
                if not name.startswith(".") and not name.endswith(_UNFINISHED):
                    self._bring(source, target, name, info, mounted)
            for name, _ in folders:
                if name.startswith(".") or (depth == _MAX_DEPTH and name in _NOT_BY_LINK):
                    continue
                with contextlib.suppress(OSError), self._both(source, target, name) as (ours, its):
                    if depth == _MAX_DEPTH and name == _GIT:
                        self._borrow_all(ours, its, mounted / name)
                    elif depth > 1:
                        self.fill(ours, its, mounted / name, depth - 1)

    def _bring(
        self, source: int, target: int, name: str, info: os.stat_result, mounted: PurePosixPath
    ) -> None:
        with contextlib.suppress(OSError):  # it went, or a stranger's own is there
            if name.endswith(_DONE):  # BitBake writes to stamps, also to those that it found
                self._copy(source, target, name, _MAX_STAMP)
            elif stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                os.symlink(str(mounted / name), name, dir_fd=target)
                self._give(target, name)

    def _borrow_all(self, source: int, target: int, mounted: PurePosixPath) -> None:
        for files, folders in chunks_of(source):
            for name, _ in folders:
                if not name.startswith("."):
                    with contextlib.suppress(OSError):
                        self._borrow(source, target, name, mounted / name)
            for name, _ in files:
                if name.endswith(_DONE):
                    with contextlib.suppress(OSError):
                        self._copy(source, target, name, _MAX_STAMP)

    def _borrow(self, source: int, target: int, name: str, mounted: PurePosixPath) -> None:
        """A bare repository of its own with the refs of the shared one, and its objects."""
        with _folder(source, name) as theirs:
            os.stat("packed-refs", dir_fd=theirs, follow_symlinks=False)  # else nothing is whole
            os.mkdir(name, 0o755, dir_fd=target)
            self._give(target, name)
            with _folder(target, name) as ours:
                for folder in ("objects", "objects/info", "objects/pack", "refs", "refs/heads"):
                    os.mkdir(folder, 0o755, dir_fd=ours)
                    self._give(ours, folder)
                for file in _COPIED:
                    with contextlib.suppress(FileNotFoundError):
                        self._copy(theirs, ours, file, _MAX_REFS)
                with self._both(theirs, ours, "refs") as (loose, refs):
                    self._copy_refs(loose, refs, _MAX_DEPTH)
                line = f"{mounted}/objects\n".encode()
                self._write(ours, "objects/info/alternates", line)

    def _copy_refs(self, source: int, target: int, depth: int) -> None:
        for files, folders in chunks_of(source):
            for name, _ in files:
                if not name.endswith(".lock"):
                    self._copy(source, target, name, _MAX_STAMP)
            for name, _ in folders if depth else ():
                with self._both(source, target, name) as (ours, its):
                    self._copy_refs(ours, its, depth - 1)

    @contextlib.contextmanager
    def _both(self, source: int, target: int, name: str) -> Iterator[tuple[int, int]]:
        with _folder(source, name) as theirs:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=target)
                self._give(target, name)
            with _folder(target, name) as ours:
                yield theirs, ours

    def _copy(self, source: int, target: int, name: str, limit: int) -> None:
        fd = os.open(name, _READ, dir_fd=source)
        with os.fdopen(fd, "rb", buffering=0) as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
                return
            raw = file.read(limit) or b""
        self._write(target, name, raw, (info.st_atime_ns, info.st_mtime_ns))

    def _write(
        self, target: int, name: str, raw: bytes, times: tuple[int, int] | None = None
    ) -> None:
        fd = os.open(name, _WRITE, 0o644, dir_fd=target)
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            if times is not None:  # BitBake believes a stamp that is younger than its file
                os.utime(fd, ns=times)
            if self._owner is not None:
                os.fchown(fd, *self._owner)

    def _give(self, target: int, name: str) -> None:
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=target, follow_symlinks=False)


def _drop_links(folder: int) -> None:
    """Links to files that are gone would keep BitBake from fetching them again."""
    for files, _ in chunks_of(folder):
        for name, info in files:
            if stat.S_ISLNK(info.st_mode):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _folder(parent: int, name: str) -> Iterator[int]:
    fd = open_folder(name, parent)
    try:
        yield fd
    finally:
        os.close(fd)
