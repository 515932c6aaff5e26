"""Whether an sstate object can be unpacked, and its signature read: streamed, never extracted."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
import tarfile
import zlib
from collections.abc import Mapping
from typing import IO, Any, BinaryIO, Final, cast

from smidr_ci.caches.units import SstateName
from smidr_ci.cancel import CancelToken

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdError, ZstdFile
else:
    from backports.zstd import DecompressionParameter, ZstdError, ZstdFile

__all__ = ["archive_fault", "is_signature_proven", "signature_fault"]

_CHUNK: Final = 1 << 18
_MAX_UNPACKED: Final = 256 << 30
_MAX_SIGNATURE: Final = 64 << 20
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_WINDOW_LOG: Final = 27  # what zstd itself takes without being told that memory may go
_BLOCK: Final = tarfile.BLOCKSIZE
_SPARSE_MORE: Final = 482  # GNU tar's header: more of the map of holes follows
_SPARSE_MORE_AGAIN: Final = 504
_MAX_PAX: Final = 1 << 20
_PAX_SIZE: Final = re.compile(rb"(?:^|\n)\d+ size=(\d{1,19})\n")
_WITH_TEXT: Final = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
     tarfile.SOLARIS_XHDTYPE}
)  # fmt: skip
_DAMAGE: Final = (EOFError, gzip.BadGzipFile, zlib.error, ZstdError, tarfile.TarError, IndexError)


class _Plain:
    """What a decompressor gives, read in whole pieces of bounded size."""

    def __init__(self, source: IO[bytes], cancel: CancelToken) -> None:
        self._source = source
        self._cancel = cancel
        self._left = _MAX_UNPACKED

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        parts = bytearray()
        while len(parts) < size and (chunk := self._chunk(size - len(parts))):
            parts += chunk
        return bytes(parts)

    def skip(self, size: int) -> None:
        """Go on by so many bytes; raises `EOFError`."""
        while size > 0:
            chunk = self._chunk(size)
            if not chunk:
                raise EOFError("it ends in the middle of a file")
            size -= len(chunk)

    def drain(self) -> None:
        """Go to the end, where checksums of all that was packed stand."""
        while self._chunk(_CHUNK):
            pass

    def _chunk(self, size: int) -> bytes:
        self._cancel.raise_if_cancelled()
        chunk = self._source.read(min(size, _CHUNK))
        self._left -= len(chunk)
        if self._left < 0:
            raise EOFError(f"it unpacks to more than {_MAX_UNPACKED >> 30} GiB")
        return chunk


def archive_fault(file: IO[bytes], suffix: str, cancel: CancelToken) -> str:
    """Why the object can't be unpacked; empty when all of it can. `suffix` as in `SstateName`.

    Raises `OSError` for what the disk says, and `CancelledError`.
    """
    try:
        with _decompressed(file, is_zstd=suffix == ".tar.zst") as source:
            plain = _Plain(source, cancel)
            _walk_tar(plain)
            plain.drain()
    except _DAMAGE as error:
        return str(error) or type(error).__name__
    return ""


def _walk_tar(plain: _Plain) -> None:
    """Go from header to header; `tarfile` itself would keep whatever a header announces."""
    size_for_next = None
    while True:
        block = plain.read(_BLOCK)
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed has no header errors
            return
        has_data = entry.isreg() or entry.type not in tarfile.SUPPORTED_TYPES
        if entry.type == tarfile.GNUTYPE_SPARSE:
            is_extended = bool(block[_SPARSE_MORE])
            while is_extended:
                is_extended = bool(plain.read(_BLOCK)[_SPARSE_MORE_AGAIN])
        size = entry.size if size_for_next is None or not has_data else size_for_next
        if entry.type in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE} and size <= _MAX_PAX:
            found = _PAX_SIZE.search(plain.read(-(-size // _BLOCK) * _BLOCK))
            size_for_next = int(found[1]) if found else None
            continue
        if has_data or entry.type in _WITH_TEXT:
            plain.skip(-(-size // _BLOCK) * _BLOCK)
        if entry.type not in _WITH_TEXT:
            size_for_next = None


def signature_fault(file: IO[bytes], name: SstateName) -> tuple[str, Mapping[str, Any]]:
    """Why a `.siginfo` can't be the object's, and what is in it.

    Releases before honister write a pickle, which is left alone: its content reads as empty.
    """
    head = file.read(len(_ZSTD_MAGIC))
    file.seek(0)
    if head != _ZSTD_MAGIC:
        return ("it is empty" if not head else ""), {}
    try:
        with _decompressed(file, is_zstd=True) as plain:
            raw = plain.read(_MAX_SIGNATURE + 1)
        found = json.loads(raw)
        task = found["task"]
    except (*_DAMAGE, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"its signature can't be read: {str(error)[:200] or type(error).__name__}", {}
    if task != f"do_{name.task}":
        return f"its signature is of {str(task)[:80]}", {}
    return "", cast("Mapping[str, Any]", found)


def is_signature_proven(found: Mapping[str, Any], name: SstateName) -> bool:
    """Whether all that the signature lists gives the hash in the object's name.

    As bb/siggen.py, `calc_taskhash`. False proves nothing: with hash equivalence an object has the
    hash of another one that is worth the same.
    """
    try:
        text = found["basehash"]
        for dependency in found["runtaskdeps"]:
            text += found["runtaskhashes"][dependency]
        for path, checksum in found["file_checksum_values"]:
            if checksum:
                text += (path if "./" in path else "") + checksum
        text += found.get("taint", "").removeprefix("nostamp:")
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return hashlib.sha256(text.encode()).hexdigest() == name.unihash


def _decompressed(file: IO[bytes], *, is_zstd: bool) -> IO[bytes]:
    if not is_zstd:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb"))
    options: dict[int, int] = {DecompressionParameter.window_log_max: _WINDOW_LOG}
    return cast("IO[bytes]", ZstdFile(cast("BinaryIO", file), "rb", options=options))
