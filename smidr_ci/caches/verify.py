"""Looks at every object and download, and sets aside what is damaged.

Several at a time; each is streamed, so that memory depends on the number of CPUs only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from smidr_ci.caches.archives import archive_fault, is_signature_proven, signature_fault
from smidr_ci.caches.done_stamp import CHECKSUMS, read_checksums
from smidr_ci.caches.git_check import mirror_fault
from smidr_ci.caches.set_aside import set_aside
from smidr_ci.caches.unit import fetch_lock
from smidr_ci.caches.units import DAMAGED, SstateName, unit_of
from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, idle_priority, open_folder, opened
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError
from smidr_ci.files import DELETING_PREFIX

__all__ = [
    "State",
    "Verdict",
    "check_download",
    "check_object",
    "check_tarball",
    "verify_downloads",
    "verify_sstate",
]

_CHUNK: Final = 1 << 20
_STAMP_LIMIT: Final = 64 * 1024
_GIT_FOLDERS: Final = ("git2", "git")
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class State(StrEnum):
    """What was found out of one object or download."""

    PROVEN = "proven"
    """Whole, and it is what its name or checksum says."""
    WHOLE = "whole"
    """It can be unpacked; nothing says what it should be."""
    UNKNOWN = "unknown"
    """There is nothing to compare it with, or it could not be read."""
    IN_USE = "in-use"
    """A build is fetching it."""
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Verdict:
    """One object or download."""

    cache: str
    path: str
    """Relative to the cache."""
    state: State
    reason: str = ""
    is_set_aside: bool = False


def verify_sstate(
    root: Path, cancel: CancelToken, *, dry_run: bool = False, workers: int | None = None
) -> Iterator[Verdict]:
    """A verdict on each object: can all of it be unpacked, is its signature its own.

    Raises `OSError` when the root can't be read, and `CancelledError`.
    """

    def check(path: str) -> Verdict:
        state, reason = check_object(root, path, cancel)
        is_moved = state is State.DAMAGED and not dry_run and set_aside(root, path)
        return Verdict("sstate", path, state, reason, is_moved)

    yield from _in_parallel(check, _objects(root), workers)


def verify_downloads(
    root: Path, cancel: CancelToken, *, dry_run: bool = False, workers: int | None = None
) -> Iterator[Verdict]:
    """A verdict on each download: has it the checksum that BitBake noted, is a git mirror whole.

    Raises as `verify_sstate`.
    """

    def check(path: str) -> Verdict:
        folder, _, name = path.rpartition("/")
        with opened(root, folder) as fd, fetch_lock(fd, name) as is_ours:
            if not is_ours:
                return Verdict("downloads", path, State.IN_USE, "a build is fetching it")
            state, reason = _check_download(root, path, fd, name, cancel)
            is_moved = state is State.DAMAGED and not dry_run and set_aside(root, path)
        return Verdict("downloads", path, state, reason, is_moved)

    yield from _in_parallel(check, _downloads(root), workers)


def check_object(root: Path, path: str, cancel: CancelToken) -> tuple[State, str]:
    """What there is to say of one sstate object, by its path below the root, and why.

    Raises `CancelledError`.
    """
    folder, _, base = path.rpartition("/")
    name = SstateName.parse(base)
    if name is None:
        return State.UNKNOWN, "its name is none that OE-Core gives"
    try:
        with opened(root, folder) as fd:
            with _open_file(fd, base) as file:
                fault = archive_fault(file, name.suffix, cancel)
            if fault:
                return State.DAMAGED, f"it can't be unpacked: {fault}"
            if f"/{path}".rpartition("/")[0].endswith(f"/{name.folder}") is False:
                return State.DAMAGED, "it does not lie where its hash says"
            return _check_signature(fd, base, name)
    except FileNotFoundError:
        return State.UNKNOWN, "it went away meanwhile"
    except OSError as error:
        return State.UNKNOWN, f"can't be read: {error.strerror or error}"


def _check_signature(fd: int, base: str, name: SstateName) -> tuple[State, str]:
    try:
        with _open_file(fd, f"{base}.siginfo") as file:
            fault, found = signature_fault(file, name)
    except FileNotFoundError:
        return State.WHOLE, "it has no signature"
    if fault:
        return State.DAMAGED, fault
    if is_signature_proven(found, name):
        return State.PROVEN, ""
    return State.WHOLE, "its hash is not that of its signature: hash equivalence, or an old release"


def check_download(root: Path, path: str, cancel: CancelToken) -> tuple[State, str]:
    """The same of one download, whether or not a build uses it."""
    folder, _, name = path.rpartition("/")
    try:
        with opened(root, folder) as fd:
            return _check_download(root, path, fd, name, cancel)
    except OSError as error:
        return State.UNKNOWN, f"can't be read: {error.strerror or error}"


def check_tarball(root: Path, path: str, cancel: CancelToken) -> tuple[State, str]:
    """The same of a download in tar.gz format that has no checksum."""
    folder, _, name = path.rpartition("/")
    try:
        with opened(root, folder) as fd, _open_file(fd, name) as file:
            fault = archive_fault(file, ".tgz", cancel)
    except OSError as error:
        return State.UNKNOWN, f"can't be read: {error.strerror or error}"
    return (State.DAMAGED, f"it can't be unpacked: {fault}") if fault else (State.WHOLE, "")


def _check_download(
    root: Path, path: str, fd: int, name: str, cancel: CancelToken
) -> tuple[State, str]:
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            fault = mirror_fault(root / path, cancel)
            if fault is None:
                return State.UNKNOWN, "no git repository"
            return (State.DAMAGED, fault) if fault else (State.PROVEN, "")
        return _check_checksum(fd, name, info, cancel)
    except FileNotFoundError:
        return State.UNKNOWN, "it went away meanwhile"
    except (OSError, SmidrError) as error:
        cancel.raise_if_cancelled()
        return State.UNKNOWN, f"can't be read: {error}"


def _check_checksum(
    fd: int, name: str, info: os.stat_result, cancel: CancelToken
) -> tuple[State, str]:
    try:
        with _open_file(fd, f"{name}.done") as stamp:
            noted = read_checksums(stamp.read(_STAMP_LIMIT))
            stamped = os.fstat(stamp.fileno())
    except OSError:
        return State.UNKNOWN, "no checksum was noted"
    if not noted:
        return State.UNKNOWN, "no checksum was noted"
    if info.st_mtime >= stamped.st_mtime:
        # BitBake itself looks anew then (bb/fetch2, `verify_donestamp`).
        return State.UNKNOWN, "it is newer than what was noted of it"
    kind = next(kind for kind in CHECKSUMS if kind in noted)
    seen = hashlib.new(kind, usedforsecurity=False)
    with _open_file(fd, name) as file:
        while chunk := file.read(_CHUNK):
            cancel.raise_if_cancelled()
            seen.update(chunk)
    if seen.hexdigest() == noted[kind]:
        return State.PROVEN, ""
    return State.DAMAGED, f"its {kind} is {seen.hexdigest()}, and {noted[kind]} was noted"


def _objects(root: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), opened(root) as fd:
        yield from _files(fd, "", lambda name: name.endswith((".tar.zst", ".tgz")), 0)


def _downloads(root: Path) -> Iterator[str]:
    """Files right in DL_DIR, and git mirrors; what other fetchers keep can't be checked."""
    with contextlib.suppress(FileNotFoundError), opened(root) as fd:
        for files, _ in chunks_of(fd):
            yield from (name for name, _ in files if unit_of(name) == name != "CACHEDIR.TAG")
        for folder in _GIT_FOLDERS:
            with contextlib.suppress(OSError), opened(root, folder) as inner:
                for _, folders in chunks_of(inner):
                    names = (name for name, _ in folders if not name.startswith(DELETING_PREFIX))
                    yield from (f"{folder}/{name}" for name in names)


def _files(fd: int, above: str, wanted: Callable[[str], bool], depth: int) -> Iterator[str]:
    prefix = f"{above}/" if above else ""
    inner: list[str] = []
    for files, folders in chunks_of(fd):
        yield from (f"{prefix}{name}" for name, _ in files if wanted(name))
        inner += [name for name, _ in folders if f"{prefix}{name}" != DAMAGED]
    for name in inner if depth < MAX_DEPTH else ():
        try:
            folder = open_folder(name, fd)
        except OSError:
            continue
        try:
            yield from _files(folder, f"{prefix}{name}", wanted, depth + 1)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _open_file(folder: int, name: str) -> Iterator[BinaryIO]:
    fd = os.open(name, _OPEN, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "it is no regular file")
        yield file


def _in_parallel(
    check: Callable[[str], Verdict], paths: Iterator[str], workers: int | None
) -> Iterator[Verdict]:
    count = workers or len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(count, "cache-verify", initializer=idle_priority)
    waiting: deque[Future[Verdict]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(check, path))
            if len(waiting) > 4 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
