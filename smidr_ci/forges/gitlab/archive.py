"""Artifacts as byte streams: zip, gzip and raw, of any size in little memory.

The formats are what GitLab takes (GitLab Runner: helpers/archives). A zip is written with data
descriptors, so it needs no second look at what was sent already.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from smidr_ci.artifacts.model import shown
from smidr_ci.errors import BuildFailedError, FailureKind
from smidr_ci.files import open_untrusted
from smidr_ci.forges.gitlab.packed import is_packed
from smidr_ci.forges.gitlab.replay import (
    Buffers,
    Bytes,
    Piece,
    Source,
    file_changed,
)
from smidr_ci.forges.gitlab.selection import Selection

__all__ = ["LEVELS", "gzip_pieces", "raw_pieces", "zip_pieces"]

LEVELS: Final = {"fastest": 0, "fast": 1, "default": 6, "slow": 7, "slowest": 9}
"""What ARTIFACT_COMPRESSION_LEVEL may say, as zlib levels; 0 stores."""

_SMALL_BYTES: Final = 64 << 10
_MAGIC_BYTES: Final = 64
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
_LATEST: Final = (2107, 12, 31, 23, 59, 58)
_KEPT_MODE: Final = 0o777


class _Sink:
    """Takes what a writer of the standard library writes, without a copy; it can't seek."""

    def __init__(self) -> None:
        self._parts: list[Bytes] = []

    def write(self, data: Bytes) -> int:
        self._parts.append(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> Bytes:
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True)
class _Zip:
    writer: zipfile.ZipFile
    sink: _Sink
    selection: Selection
    level: int
    warn: Callable[[str], None]


def zip_pieces(
    selection: Selection, *, level: int = LEVELS["default"], warn: Callable[[str], None]
) -> Iterator[Piece]:
    """A zip with modes, times and links as links; what is packed already is only stored.

    Devices, pipes and sockets are left out with a warning. Raises `BuildFailedError` for a file
    that can't be read.
    """
    sink = _Sink()
    # A sink without tell() makes zipfile stream.
    writer = zipfile.ZipFile(sink, "w", allowZip64=True)  # type: ignore[call-overload]
    archive = _Zip(writer, sink, selection, level, warn)
    try:
        for path in selection.paths:
            yield from _add(archive, path)
    finally:
        writer.close()
    yield Piece(sink.take())


def _add(archive: _Zip, path: str) -> Iterator[Piece]:
    place = archive.selection.place(path)
    try:
        info = place.lstat()
        if stat.S_ISREG(info.st_mode):
            yield from _add_file(archive, path)
        elif stat.S_ISDIR(info.st_mode):
            archive.writer.writestr(_entry(f"{path}/", info), b"")
        elif stat.S_ISLNK(info.st_mode):
            archive.writer.writestr(_entry(path, info), os.readlink(os.fsencode(place)))
        else:
            archive.warn(f"{shown(path)}: left out, it is neither file, directory nor link")
    except OSError as error:
        raise _unreadable(path, error) from error
    yield Piece(archive.sink.take())


def _add_file(archive: _Zip, path: str) -> Iterator[Piece]:
    place = archive.selection.place(path)
    with open_untrusted(place) as file:
        info = os.fstat(file.fileno())
        source = Source.of(place, info)
        buffers = Buffers(info.st_size)
        first = buffers.fill(file, info.st_size)
        is_stored = not archive.level or is_packed(path, bytes(first[:_MAGIC_BYTES]))
        entry = _entry(path, info, 0 if is_stored else archive.level)
        entry.file_size = info.st_size
        with archive.writer.open(entry, "w") as writer:
            offset = 0
            for chunk in _chunks(file, first, buffers, info.st_size):
                header = archive.sink.take()
                writer.write(chunk)
                packed = archive.sink.take()
                is_own = is_stored and info.st_size > _SMALL_BYTES
                yield Piece(header)
                yield Piece(packed, source, offset) if is_own else Piece(packed)
                offset += len(chunk)
        if offset != info.st_size:
            raise file_changed(place)


def _chunks(file: FileIO, first: memoryview, buffers: Buffers, size: int) -> Iterator[memoryview]:
    chunk, left = first, size
    while chunk:
        yield chunk
        left -= len(chunk)
        chunk = buffers.fill(file, left)


def _entry(path: str, info: os.stat_result, level: int = 0) -> zipfile.ZipInfo:
    moment = min(max(time.gmtime(max(0, info.st_mtime))[:6], _EARLIEST), _LATEST)
    entry = zipfile.ZipInfo(_zip_name(path), moment)
    entry.create_system = 3  # Unix, which gives external_attr its meaning
    entry.external_attr = (stat.S_IFMT(info.st_mode) | info.st_mode & _KEPT_MODE) << 16
    if stat.S_ISDIR(info.st_mode):
        entry.external_attr |= 0x10
    entry.compress_type = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    entry._compresslevel = level or None  # type: ignore[attr-defined]  # noqa: SLF001 - public only from 3.13 on
    # Info-ZIP's "UT": the time in UTC, where the zip's own field has no zone.
    entry.extra = struct.pack("<HHBI", 0x5455, 5, 1, min(max(0, int(info.st_mtime)), 0xFFFFFFFF))
    return entry


def _zip_name(path: str) -> str:
    """Names that are not UTF-8 can't be kept."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def gzip_pieces(selection: Selection, *, warn: Callable[[str], None]) -> Iterator[Piece]:
    """One gzip member for each regular file, one after the other."""
    for path in selection.paths:
        place = selection.place(path)
        if not _is_file(place, path, warn):
            continue
        with _opened(place, path) as file:
            sink = _Sink()
            # The name in the header is Latin-1; GzipFile leaves out what isn't.
            with gzip.GzipFile(os.path.basename(path), "wb", fileobj=sink, mtime=0) as writer:
                buffers = Buffers()
                while chunk := buffers.fill(file):
                    writer.write(chunk)
                    yield Piece(sink.take())
            yield Piece(sink.take())


def raw_pieces(selection: Selection, *, warn: Callable[[str], None]) -> Iterator[Piece]:
    """The one file as it is; raises `BuildFailedError` when there are more."""
    files = [path for path in selection.paths if _is_file(selection.place(path), path, warn)]
    if len(files) > 1:
        raise BuildFailedError(
            f"{len(files)} files were chosen where the format takes one: "
            + ", ".join(shown(path) for path in files[:5]),
            hint="Name one file in this report of artifacts:reports.",
            kind=FailureKind.ARTIFACTS,
        )
    return _raw(selection, files)


def _raw(selection: Selection, files: Iterable[str]) -> Iterator[Piece]:
    for path in files:
        place = selection.place(path)
        with _opened(place, path) as file:
            source, offset = Source.of(place, os.fstat(file.fileno())), 0
            buffers = Buffers()
            while chunk := buffers.fill(file):
                yield Piece(chunk, source, offset)
                offset += len(chunk)


def _is_file(place: Path, path: str, warn: Callable[[str], None]) -> bool:
    mode = place.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        warn(f"{shown(path)}: left out, only files can be in this report")
    return stat.S_ISREG(mode)


def _opened(place: Path, path: str) -> FileIO:
    try:
        return open_untrusted(place)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> BuildFailedError:
    return BuildFailedError(
        f"can't read an artifact: {error.strerror or error}",
        where=shown(path),
        hint="Give the file read permission at the end of the job, or exclude it.",
        kind=FailureKind.ARTIFACTS,
    )
