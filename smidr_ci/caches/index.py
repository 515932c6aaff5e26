"""What each folder of a cache held when it was last looked into, in one SQLite file.

A folder is looked into again when its modification time has changed. Sizes are exact, since caches
are written by rename; a use (a touch) changes no folder, so uses are those of the last full look.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, open_folder, opened
from smidr_ci.cancel import CancelToken
from smidr_ci.disposable import DisposableFormat

__all__ = ["CacheIndex", "Totals"]

_RACY_NS: Final = 2_000_000_000
_TABLE: Final = """
create table if not exists folders (
    cache text not null, root text not null, path blob not null, mtime_ns integer not null,
    looked_ns integer not null, files integer not null, objects integer not null,
    size_bytes integer not null, oldest_s integer not null, newest_s integer not null,
    primary key (cache, root, path)) without rowid
"""
_DATABASE: Final = DisposableFormat(version=1, tables=("folders",), script=_TABLE, busy_s=5.0)


@dataclass(frozen=True)
class Totals:
    """What a cache holds, and how old what is known of it may be."""

    files: int = 0
    objects: int = 0
    """Files that describe no other one: not `.siginfo`, `.sig`, `.done`, `.lock`."""
    size_bytes: int = 0
    """On disk."""
    oldest_use_s: int = 0
    """Seconds since 1970; 0 when there are no files."""
    newest_use_s: int = 0
    folders: int = 0
    looked_s: float = 0.0
    """When the folder that was looked into longest ago was."""


@dataclass
class _Row:
    mtime_ns: int
    looked_ns: int
    files: int = 0
    objects: int = 0
    size_bytes: int = 0
    oldest_s: int = 0
    newest_s: int = 0
    folders: tuple[bytes, ...] | None = None
    """Names of inner folders; None when this row was not looked into now."""


class CacheIndex:
    """The index of one host's caches. A damaged or missing file is made anew.

    Where it can't be written, everything works and is only slower.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._now_ns = now_ns

    def refresh(
        self, cache: str, root: Path, cancel: CancelToken | None = None, *, full: bool = False
    ) -> Totals:
        """Bring the index up to date with a directory, and add up. `full` looks into all folders.

        Raises `OSError` when the directory can't be read, and `CancelledError`.
        """
        real = os.path.realpath(root)
        known = {} if full else self._load(cache, real)
        look = _Look(self._now_ns(), known, cancel or CancelToken())
        with contextlib.suppress(FileNotFoundError), opened(Path(real)) as fd:
            look.visit(fd)
        self._store(cache, real, look, full=full)
        return _sum(look.found)

    def _load(self, cache: str, root: str) -> dict[bytes, _Row]:
        query = (
            "select path, mtime_ns, looked_ns, files, objects, size_bytes, oldest_s, newest_s"
            " from folders where cache = ? and root = ?"
        )
        try:
            with self._opened() as database:
                rows = database.execute(query, (cache, root))
                return {row[0]: _Row(*row[1:]) for row in rows}
        except (sqlite3.Error, OSError, TypeError):
            return {}

    def _store(self, cache: str, root: str, look: _Look, *, full: bool) -> None:
        gone = [(cache, root, path) for path in look.known.keys() - look.found.keys()]
        fresh = [
            (cache, root, path, row.mtime_ns, row.looked_ns, row.files, row.objects,
             row.size_bytes, row.oldest_s, row.newest_s)
            for path, row in look.found.items() if row.folders is not None
        ]  # fmt: skip
        if not gone and not fresh and not full:
            return
        with contextlib.suppress(sqlite3.Error, OSError), self._opened() as database, database:
            if full:
                database.execute("delete from folders where cache = ? and root = ?", (cache, root))
            database.executemany(
                "delete from folders where cache = ? and root = ? and path = ?", gone
            )
            database.executemany(
                f"insert or replace into folders values ({','.join('?' * 10)})",  # noqa: S608 - only marks
                fresh,
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(_DATABASE.connect(self._path)) as database:
            yield database


class _Look:
    """One update: goes where a folder changed, and takes the rest from what is known."""

    def __init__(self, now_ns: int, known: dict[bytes, _Row], cancel: CancelToken) -> None:
        self.found: dict[bytes, _Row] = {}
        self.known = known
        self._now_ns = now_ns
        self._cancel = cancel
        self._children: dict[bytes, list[bytes]] = {}
        for path in known:
            if path:
                above, _, name = path.rpartition(b"/")
                self._children.setdefault(above, []).append(name)

    def visit(self, fd: int, path: bytes = b"", depth: int = 0) -> None:
        info = os.fstat(fd)
        row = self.known.get(path)
        if row is None or not _is_current(row, info.st_mtime_ns):
            self._cancel.raise_if_cancelled()
            row = _look_into(fd, info.st_mtime_ns, self._now_ns)
        self.found[path] = row
        names = self._children.get(path, ()) if row.folders is None else row.folders
        for name in names:
            inner = path + b"/" + name if path else name
            if depth < MAX_DEPTH and not self._is_unchanged_leaf(fd, name, inner):
                with contextlib.suppress(OSError), _folder(fd, name) as opened_fd:
                    self.visit(opened_fd, inner, depth + 1)

    def _is_unchanged_leaf(self, fd: int, name: bytes, path: bytes) -> bool:
        """Most folders hold no others: one call tells that nothing has changed."""
        row = self.known.get(path)
        if row is None or path in self._children:
            return False
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return True
        if not stat.S_ISDIR(info.st_mode) or not _is_current(row, info.st_mtime_ns):
            return False
        self.found[path] = row
        return True


def _is_current(row: _Row, mtime_ns: int) -> bool:
    # What changed within a tick of the file system's clock after our look shows no new time.
    return row.mtime_ns == mtime_ns and row.looked_ns - mtime_ns > _RACY_NS


def _look_into(fd: int, mtime_ns: int, now_ns: int) -> _Row:
    row = _Row(mtime_ns, now_ns)
    folders: list[bytes] = []
    oldest = newest = 0
    now_s = now_ns // 1_000_000_000
    for files, inner in chunks_of(fd):
        folders += [os.fsencode(name) for name, _ in inner]
        for name, info in files:
            row.files += 1
            row.objects += not name.endswith((".siginfo", ".sig", ".done", ".lock"))
            row.size_bytes += info.st_blocks * 512
            use_s = min(int(info.st_mtime), now_s)
            oldest = min(oldest or use_s, use_s)
            newest = max(newest, use_s)
    row.oldest_s, row.newest_s, row.folders = oldest, newest, tuple(folders)
    return row


@contextlib.contextmanager
def _folder(parent: int, name: bytes) -> Iterator[int]:
    fd = open_folder(os.fsdecode(name), parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _sum(rows: dict[bytes, _Row]) -> Totals:
    held = [row for row in rows.values() if row.files]
    return Totals(
        files=sum(row.files for row in held),
        objects=sum(row.objects for row in held),
        size_bytes=sum(row.size_bytes for row in held),
        oldest_use_s=min((row.oldest_s for row in held), default=0),
        newest_use_s=max((row.newest_s for row in held), default=0),
        folders=len(rows),
        looked_s=min((row.looked_ns for row in rows.values()), default=0) / 1e9,
    )
