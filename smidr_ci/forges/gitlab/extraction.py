"""A stranger's zip into a stranger's directory: nothing is written outside, and not too much.

Each part of a path is opened below the one before without following a link, so neither names like
`../x` nor links in the directory or in the zip lead anywhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from smidr_ci.artifacts.model import shown
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BuildFailedError, FailureKind, HostError
from smidr_ci.files import as_host_error

__all__ = ["ExtractLimits", "extract_zip"]

_CHUNK: Final = 1 << 20
_END: Final = b"PK\x05\x06"
_END64: Final = b"PK\x06\x06"
_MAX_LINK: Final = 4096
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class ExtractLimits:
    """What one archive may cost at most."""

    entries: int = 500_000
    size_bytes: int = 200 << 30
    directory_bytes: int = 256 << 20
    """Of the zip's own list of entries, which is held in memory."""
    spare_bytes: int = 1 << 30
    """What must stay free on the disk."""


def extract_zip(
    file: IO[bytes],
    project: Path,
    *,
    warn: Callable[[str], None],
    cancel: CancelToken,
    limits: ExtractLimits | None = None,
) -> int:
    """Write all entries below `project`, over what is there; how many there were.

    An entry that leads out, or into `.git`, is left out with a warning. Raises `BuildFailedError`
    for what is no zip or too much, `HostError` for this disk.
    """
    limits = limits or ExtractLimits()
    try:
        _check_directory(file, limits)
        with zipfile.ZipFile(file) as archive, _folder(project) as root:
            _check_total(archive, project, limits)
            return _Extraction(archive, root, warn, cancel, limits.size_bytes).run()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError) as error:
        raise _refused(f"the archive can't be unpacked: {error}") from error
    except OSError as error:
        raise as_host_error(error, "can't unpack the artifacts", project) from error


@dataclass
class _Extraction:
    archive: zipfile.ZipFile
    root: int
    warn: Callable[[str], None]
    cancel: CancelToken
    left_bytes: int

    def run(self) -> int:
        folders = []
        for entry in self.archive.infolist():
            self.cancel.raise_if_cancelled()
            parts = _parts(entry.filename)
            if parts is None:
                self.warn(f"{shown(entry.filename)[:200]}: left out, it leads out of the project")
                continue
            self._one(entry, parts)
            if entry.is_dir():
                folders.append((entry, parts))
        for entry, parts in reversed(folders):  # files in them have changed their times
            with contextlib.suppress(OSError), _below(self.root, parts) as folder:
                os.fchmod(folder, _mode(entry, 0o755) | 0o700)
                os.utime(folder, (_mtime(entry), _mtime(entry)))
        return len(self.archive.infolist())

    def _one(self, entry: zipfile.ZipInfo, parts: list[str]) -> None:
        if entry.is_dir():
            with _below(self.root, parts):
                return
        with _below(self.root, parts[:-1]) as folder:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if not _make_room(folder, parts[-1]):
                self.warn(f"{shown(entry.filename)[:200]}: left out, a directory is in its place")
            elif kind == stat.S_IFLNK:
                self._link(entry, folder, parts)
            elif kind in {0, stat.S_IFREG}:
                self._file(entry, folder, parts[-1])
            else:
                self.warn(f"{shown(entry.filename)[:200]}: left out, it is no file")

    def _link(self, entry: zipfile.ZipInfo, folder: int, parts: list[str]) -> None:
        with self.archive.open(entry) as source:
            target = os.fsdecode(source.read(_MAX_LINK + 1))
        place = posixpath.normpath(posixpath.join(*parts[:-1], target))
        is_inside = not target.startswith("/") and not f"{place}/".startswith("../")
        if not target or "\0" in target or len(target) > _MAX_LINK or not is_inside:
            self.warn(f"{shown(entry.filename)[:200]}: left out, the link leads out of the project")
            return
        os.symlink(target, parts[-1], dir_fd=folder)

    def _file(self, entry: zipfile.ZipInfo, folder: int, name: str) -> None:
        if entry.flag_bits & 1:
            raise _refused("the archive is encrypted")
        handle = os.open(name, _NEW, 0o600, dir_fd=folder)
        with os.fdopen(handle, "wb") as target, self.archive.open(entry) as source:
            while chunk := source.read(_CHUNK):
                self.cancel.raise_if_cancelled()
                self.left_bytes -= len(chunk)
                if self.left_bytes < 0:
                    raise _refused("the archive holds more than it says and than is allowed")
                target.write(chunk)
            target.flush()
            os.fchmod(handle, _mode(entry, 0o644))
            os.utime(handle, (_mtime(entry), _mtime(entry)))


def _parts(name: str) -> list[str] | None:
    """The names in a path; None when they lead out, or to what git itself keeps."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    is_bad = name.startswith("/") or ".." in parts or "\0" in name or not parts
    return None if is_bad or parts[0].lower() == ".git" else parts


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    handle = os.open(path, _FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _below(root: int, parts: list[str]) -> Iterator[int]:
    """A directory below the root, made where it is missing; what is no directory makes way."""
    handle = os.dup(root)
    try:
        for part in parts:
            following = _enter(handle, part)
            os.close(handle)
            handle = following
        yield handle
    finally:
        os.close(handle)


def _enter(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            os.unlink(name, dir_fd=folder)
        elif error.errno != errno.ENOENT:
            raise
    os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def _make_room(folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _mode(entry: zipfile.ZipInfo, default: int) -> int:
    return (entry.external_attr >> 16) & 0o777 or default


def _mtime(entry: zipfile.ZipInfo) -> float:
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return float(struct.unpack_from("<I", extra, 5)[0])
        extra = extra[4 + size :]
    with contextlib.suppress(ValueError, OverflowError):
        return time.mktime((*entry.date_time, 0, 0, -1))
    return 0.0


def _check_directory(file: IO[bytes], limits: ExtractLimits) -> None:
    """Refuse a list of entries that would fill the memory, before zipfile reads it."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - (1 << 16) - 128))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise _refused("the file is no zip archive, or not all of it")
    count, length = struct.unpack_from("<HL", tail, at + 10)
    at64 = tail.rfind(_END64, 0, at)
    if at64 >= 0 and len(tail) >= at64 + 56:
        count, length = struct.unpack_from("<QQ", tail, at64 + 32)
    if count > limits.entries or length > limits.directory_bytes:
        raise _refused(f"the archive has {count} entries, more than {limits.entries} are too many")
    file.seek(0)


def _check_total(archive: zipfile.ZipFile, project: Path, limits: ExtractLimits) -> None:
    total = sum(entry.file_size for entry in archive.infolist())
    if len(archive.infolist()) > limits.entries or total > limits.size_bytes:
        raise _refused(
            f"the archive holds {len(archive.infolist())} entries with {total / 1e9:.1f} GB;"
            f" at most {limits.entries} with {limits.size_bytes / 1e9:.1f} GB are unpacked"
        )
    place = os.statvfs(project)
    free = place.f_bavail * place.f_frsize
    if total + limits.spare_bytes > free:
        raise HostError(
            f"the artifacts take {total / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free",
            where=str(project),
            hint="Free some space on the build host.",
            kind=FailureKind.DISK,
        )


def _refused(message: str) -> BuildFailedError:
    return BuildFailedError(
        message,
        hint="Look at the artifacts of the earlier job; `dependencies` in .gitlab-ci.yml chooses"
        " whose are fetched.",
        kind=FailureKind.ARTIFACTS,
    )
