"""One unit of a file cache as it lies in an open folder: what it weighs, and how it is deleted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from smidr_ci.caches.units import unit_of
from smidr_ci.caches.walk import MAX_DEPTH, Entry, chunks_of, delete_tree, open_folder
from smidr_ci.cancel import CancelToken
from smidr_ci.files import DELETING_PREFIX
from smidr_ci.locks import try_flock

__all__ = ["Unit", "delete_unit", "fetch_lock", "grouped", "measure_tree"]


@dataclass
class Unit:
    """Files of one folder that go together."""

    name: str
    use_s: int = 0
    size_bytes: int = 0
    files: list[str] = field(default_factory=list)
    folder: str = ""
    """A folder that is part of it, such as a git mirror."""

    def add(self, entry: Entry, now_s: int) -> None:
        """Count one of its files."""
        name, info = entry
        self.use_s = max(self.use_s, _use_of(info, now_s))
        self.size_bytes += info.st_blocks * 512
        self.files.append(name)


def grouped(files: Iterable[Entry], now_s: int) -> dict[str, Unit]:
    """The units that files of one folder make, by name."""
    units: dict[str, Unit] = {}
    for entry in files:
        name = unit_of(entry[0])
        unit = units.get(name)
        if unit is None:
            unit = units[name] = Unit(name)
        unit.add(entry, now_s)
    return units


def _use_of(info: os.stat_result, now_s: int) -> int:
    # A time in the future is no use that was: a clock was wrong, or a recipe set it.
    return int(info.st_mtime if info.st_mtime <= now_s + 1 else info.st_ctime)


def measure_tree(parent: int, unit: Unit, now_s: int, cancel: CancelToken) -> None:
    """Add to a unit all that lies in its folder; what is too deep for a cache is left out."""
    waiting = [open_folder(unit.folder, parent)]
    try:
        _measure(waiting, unit, now_s, cancel)
    finally:
        for fd in waiting:
            os.close(fd)


def _measure(path: list[int], unit: Unit, now_s: int, cancel: CancelToken) -> None:
    cancel.raise_if_cancelled()
    folders: list[str] = []
    for files, inner in chunks_of(path[-1]):
        for _, info in files:
            unit.use_s = max(unit.use_s, _use_of(info, now_s))
            unit.size_bytes += info.st_blocks * 512
        for name, info in inner:
            unit.size_bytes += info.st_blocks * 512
            folders.append(name)
    if len(path) >= MAX_DEPTH:
        return
    for name in folders:
        with contextlib.suppress(OSError):
            path.append(open_folder(name, path[-1]))
            try:
                _measure(path, unit, now_s, cancel)
            finally:
                os.close(path.pop())


def delete_unit(fd: int, unit: Unit) -> bool:
    """Delete its files, and its folder after a rename; says whether all is gone.

    What describes an object goes after it, so that a crash leaves no half that looks whole.
    """
    is_gone = True
    if unit.folder:
        doomed = f"{DELETING_PREFIX}{secrets.token_hex(6)}"
        try:
            os.rename(unit.folder, doomed, src_dir_fd=fd, dst_dir_fd=fd)
        except FileNotFoundError:
            doomed = ""
        except OSError:
            return False
        is_gone = not doomed or delete_tree(fd, doomed)
    for name in sorted(unit.files, key=len):
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            continue
        except OSError:
            is_gone = False
    return is_gone


@contextlib.contextmanager
def fetch_lock(fd: int, name: str) -> Iterator[bool]:
    """BitBake's own lock on a download in an open folder; yields False while a build has it.

    `<name>.lock` by flock(2), deleted by whoever holds it (bb/utils.py, `lockfile`).
    """
    path = f"{name}.lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        lock = os.open(path, flags, 0o666, dir_fd=fd)
    except OSError:
        yield False
        return
    try:
        is_ours = _is_taken(fd, path, lock)
        try:
            yield is_ours
        finally:
            if is_ours:
                with contextlib.suppress(OSError):
                    os.unlink(path, dir_fd=fd)
    finally:
        os.close(lock)


def _is_taken(fd: int, path: str, lock: int) -> bool:
    try:
        info = os.fstat(lock)
        if not stat.S_ISREG(info.st_mode) or not try_flock(lock, fcntl.LOCK_EX):
            return False
        return os.path.samestat(info, os.stat(path, dir_fd=fd, follow_symlinks=False))
    except OSError:
        return False
