"""Writes a layer tree: files whose times depend on their content alone.

Modes are those of a checkout: BitBake copies `file://` sources with them, and a recipe must be
able to write to its copies. Builds get the tree mounted read-only.

BitBake's parse cache is valid while modification times are equal to the recorded ones
(bb/cache.py), so the same content has to have the same time in every tree and on every host.
From the middle of 2024 on it compares inode numbers too (bb/parse/__init__.py), so trees share
the files that BitBake parses by hard links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from smidr_ci.errors import LayerError

__all__ = ["MAX_FILES", "MAX_PATH", "TreeWriter", "is_metadata", "new_blob_hash", "time_of_content"]

MAX_FILES: Final = 400_000
MAX_PATH: Final = 4000
_MAX_BYTES: Final = 8 << 30
_METADATA: Final = (".bb", ".bbappend", ".bbclass", ".inc", ".conf")
_EPOCH: Final = 978_307_200
"""2001-01-01; with the span below every time lies before 2020."""
_SPAN: Final = 599_616_000
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def is_metadata(path: str) -> bool:
    """Whether BitBake parses such a file."""
    return path.endswith(_METADATA)


def time_of_content(blob_id: str) -> int:
    """Whole seconds between 2001 and 2020, a function of the git blob id alone."""
    return _EPOCH + int(blob_id[:15], 16) % _SPAN


def new_blob_hash(size: int, algorithm: str = "sha1") -> hashlib._Hash:
    """A hash that gives git's id of a blob of so many bytes, once they are fed to it."""
    return hashlib.new(algorithm, b"blob %d\0" % size, usedforsecurity=False)


class TreeWriter:
    """Fills an empty directory from names that a stranger chose.

    Each path is checked; links are made last, so no file is ever written through one.
    """

    def __init__(self, root: Path, other_time: int, shared: Path | None = None) -> None:
        """`shared` keeps one file per content for all trees, on the same file system."""
        self._root = str(root)
        self._other_time = other_time
        self._shared = shared
        self._made: set[str] = {""}
        self._links: list[tuple[str, str]] = []
        self._bytes = 0
        self._files = 0

    def add_file(
        self, path: str, chunks: Iterable[bytes], *, blob_id: str, is_executable: bool
    ) -> None:
        """Write one file; raises `LayerError` for a path or an amount that can't be right."""
        self._enter(path)
        place, mode = f"{self._root}/{path}", 0o755 if is_executable else 0o644
        if not is_metadata(path):
            self._write(place, chunks, mode, self._other_time)
            return
        self._write(place, chunks, mode, time_of_content(blob_id))
        if self._shared is not None:
            self._share(place, self._shared / blob_id[:2] / f"{blob_id[2:]}-{mode:o}")

    def _write(self, place: str, chunks: Iterable[bytes], mode: int, time: int) -> None:
        fd = os.open(place, _WRITE, 0o600)
        try:
            for chunk in chunks:
                self._count(len(chunk))
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            os.utime(fd, (time, time))
        finally:
            os.close(fd)

    def _share(self, place: str, kept: Path) -> None:
        """Make `place` and `kept` one file: the one that is kept already, if it is whole."""
        spare = f"{self._root}.link"
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.link(place, kept)
        except FileExistsError:
            try:
                os.link(kept, spare)
                if os.stat(spare).st_size == os.stat(place).st_size:
                    os.replace(spare, place)
                    return
                os.unlink(spare)
            except OSError as error:
                if error.errno not in {errno.EMLINK, errno.ENOENT}:
                    raise
            # Truncated by a power cut, or linked as often as the file system can: ours from now on.
            kept.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(place, kept)

    def add_link(self, path: str, target: str) -> None:
        """Note a symbolic link; it is made as it is, wherever it points."""
        self._enter(path)
        self._links.append((path, target))

    def add_folder(self, path: str) -> None:
        """Make an empty directory, as git does for a submodule."""
        self._enter(path)
        self._make_folder(path)

    def finish(self) -> None:
        """Make the links, then open all directories to the users that builds run as."""
        for path, target in self._links:
            place = f"{self._root}/{path}"
            os.symlink(target, place)
            os.utime(place, (self._other_time,) * 2, follow_symlinks=False)
        for folder in sorted(self._made, reverse=True):
            place = f"{self._root}/{folder}" if folder else self._root
            os.utime(place, (self._other_time,) * 2)
            os.chmod(place, 0o755)  # noqa: S103  builds run as other users

    def _enter(self, path: str) -> None:
        parts = path.split("/")
        bad = any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts)
        if bad or "\0" in path or len(os.fsencode(path)) > MAX_PATH:
            raise LayerError(
                f"the repository holds a file with the dangerous name {path[:100]!r}",
                hint="Remove it from the repository; git itself would not check it out.",
            )
        self._files += 1
        if self._files > MAX_FILES:
            raise LayerError(
                f"the tree has more than {MAX_FILES} files",
                hint="This is no layer; name a folder or repository with layers only.",
            )
        if len(parts) > 1:
            self._make_folder("/".join(parts[:-1]))

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        self._make_folder(folder.rpartition("/")[0])
        os.mkdir(f"{self._root}/{folder}", 0o700)
        self._made.add(folder)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > _MAX_BYTES:
            raise LayerError(
                f"the tree is larger than {_MAX_BYTES >> 30} GiB",
                hint="This is no layer; name a folder or repository with layers only.",
            )
