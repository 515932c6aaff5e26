"""A stranger's archive into a project's directory: zip, tar.gz and tar.zst, told by first bytes.

The formats are those in which GitLab's runners keep artifacts (GitLab Runner: helpers/archives).
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import IO, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.files import as_host_error
from smidr_ci.forges.gitlab.unpacking import (
    MAX_LINK,
    ExtractLimits,
    Unpacking,
    check_space,
    refused,
    unpacking,
)
from smidr_ci.tarstream import Body, Entry, Kind, Source, TarError, read_entries

__all__ = ["ExtractLimits", "entry_time", "extract"]

_CHUNK: Final = 1 << 20
_END: Final = b"PK\x05\x06"
_END64: Final = b"PK\x06\x06"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_WINDOW_LOG: Final = 27
"""What zstd itself takes without being told that more memory may go: 128 MiB."""


def extract(
    file: IO[bytes],
    project: Path,
    *,
    warn: Callable[[str], None],
    cancel: CancelToken,
    limits: ExtractLimits | None = None,
) -> int:
    """Write all entries below `project`, over what is there; how many there were.

    An entry that leads out, or into `.git`, is left out with a warning. Raises `BuildFailedError`
    for what is no archive or too much, `HostError` for this disk, `CancelledError`.
    """
    limits = limits or ExtractLimits()
    file.seek(0)
    magic = file.read(len(_ZSTD))
    file.seek(0)
    try:
        with unpacking(project, warn, cancel, limits) as target:
            if magic.startswith(_GZIP):
                _extract_gzip(file, target)
            elif magic == _ZSTD:
                _extract_zstd(file, target)
            else:
                _extract_zip(file, target)
            return target.finish()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError) as error:
        raise refused(f"the archive can't be unpacked: {error}") from error
    except (BadGzipFile, TarError) as error:
        raise refused(f"the archive can't be unpacked: it {error}") from error
    except OSError as error:
        raise as_host_error(error, "can't unpack the archive", project) from error


def _extract_gzip(file: IO[bytes], target: Unpacking) -> None:
    with GzipFile(fileobj=file, mode="rb") as plain:
        _extract_tar(plain, target)


def _extract_zstd(file: IO[bytes], target: Unpacking) -> None:
    # Only here: few archives need it, and an idle agent's memory is short.
    if sys.version_info >= (3, 14):
        from compression.zstd import DecompressionParameter, ZstdError, ZstdFile  # noqa: PLC0415
    else:
        from backports.zstd import (  # noqa: PLC0415
            DecompressionParameter,
            ZstdError,
            ZstdFile,
        )
    options: dict[int, int] = {DecompressionParameter.window_log_max: _WINDOW_LOG}
    try:
        with ZstdFile(file, "rb", options=options) as plain:
            _extract_tar(plain, target)
    except ZstdError as error:
        raise refused(f"the archive can't be unpacked: {error}") from error


def _extract_tar(plain: Source, target: Unpacking) -> None:
    for entry, body in read_entries(plain, max_headers=2 * target.limits.entries):
        if entry.kind is Kind.FOLDER:
            target.folder(entry.name, entry.mode, entry.mtime)
        elif entry.kind is Kind.LINK:
            target.link(entry.name, entry.target)
        elif entry.kind is Kind.FILE:
            target.file(entry.name, _of_body(entry, body, target), entry.mode, entry.mtime)
        else:
            target.other(entry.name, entry.what)


def _of_body(entry: Entry, body: Body, target: Unpacking) -> Iterator[bytes]:
    check_space(target.project, target.limits, entry.size)
    yield from body


def _extract_zip(file: IO[bytes], target: Unpacking) -> None:
    _check_directory(file, target.limits)
    with zipfile.ZipFile(file) as archive:
        _check_total(archive, target)
        for entry in archive.infolist():
            _one(archive, entry, target)


def _one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Unpacking) -> None:
    kind, mode = stat.S_IFMT(entry.external_attr >> 16), entry.external_attr >> 16
    if entry.is_dir():
        target.folder(entry.filename, mode, entry_time(entry))
    elif kind == stat.S_IFLNK:
        with archive.open(entry) as source:
            target.link(entry.filename, os.fsdecode(source.read(MAX_LINK + 1)))
    elif kind in {0, stat.S_IFREG}:
        target.file(entry.filename, _of_zip(archive, entry), mode, entry_time(entry))
    else:
        target.other(entry.filename, "no file")


def _of_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    if entry.flag_bits & 1:
        raise refused("the archive is encrypted")
    with archive.open(entry) as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def entry_time(entry: zipfile.ZipInfo) -> float:
    """When the file was changed, in seconds since 1970: Info-ZIP's time in UTC if there is one."""
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
        raise refused("the file is no zip archive, or not all of it")
    count, length = struct.unpack_from("<HL", tail, at + 10)
    at64 = tail.rfind(_END64, 0, at)
    if at64 >= 0 and len(tail) >= at64 + 56:
        count, length = struct.unpack_from("<QQ", tail, at64 + 32)
    if count > limits.entries or length > limits.directory_bytes:
        raise refused(f"the archive has {count} entries, more than {limits.entries} are too many")
    file.seek(0)


def _check_total(archive: zipfile.ZipFile, target: Unpacking) -> None:
    limits, entries = target.limits, archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > limits.entries or total > limits.size_bytes:
        raise refused(
            f"the archive holds {len(entries)} entries with {total / 1e9:.1f} GB;"
            f" at most {limits.entries} with {limits.size_bytes / 1e9:.1f} GB are unpacked"
        )
    check_space(target.project, limits, total)
