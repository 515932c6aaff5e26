"""What is put into a store: a source that can be read again, and what it must turn out to be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.files import open_untrusted

__all__ = ["CHUNK_BYTES", "ChangedError", "CheckedReader", "Content", "Source", "sha256_of"]

CHUNK_BYTES: Final = 1 << 20


class ChangedError(SmidrError):
    """A file is not, or no longer, what its size and checksum say."""

    kind = FailureKind.ARTIFACTS


class Source(Protocol):
    """An open stream of bytes."""

    def read(self, size: int = -1, /) -> bytes | None:
        """At most so many bytes, all of them at -1; empty at the end."""


@dataclass(frozen=True)
class Content:
    """Bytes that a store is to hold."""

    opened: Callable[[], AbstractContextManager[Source]]
    """Opens them from their begin; asked again for each attempt."""
    size_bytes: int
    sha256: str
    """64 hex digits."""
    name: str = ""
    """For messages."""

    @classmethod
    def of_file(cls, path: Path, size_bytes: int, sha256: str) -> Content:
        """A regular file that may be a stranger's: no link is followed in its last part."""
        return cls(lambda: open_untrusted(path), size_bytes, sha256.lower(), str(path))

    @classmethod
    def of_bytes(cls, raw: bytes) -> Content:
        """A small object from memory."""
        return cls(lambda: BytesIO(raw), len(raw), hashlib.sha256(raw).hexdigest())


class CheckedReader:
    """Reads a source and raises `ChangedError` at its end, or before, unless it is as promised.

    The last byte is given out only when all is well, so whoever counts bytes can't be fooled.
    """

    def __init__(self, source: Source, content: Content, cancel: CancelToken | None = None) -> None:
        self._source = source
        self._content = content
        self._cancel = cancel
        self._digest = hashlib.sha256()
        self._count = 0
        self._is_checked = False

    def read(self, size: int = -1) -> bytes:
        """As files do; `CancelledError` once somebody cancelled."""
        if self._cancel is not None:
            self._cancel.raise_if_cancelled()
        left = self._content.size_bytes - self._count
        wanted = left if size < 0 else min(size, left)
        chunk = self._exactly(wanted)
        self._digest.update(chunk)
        self._count += len(chunk)
        if self._count == self._content.size_bytes and not self._is_checked:
            self._check()
        return chunk

    def _exactly(self, wanted: int) -> bytes:
        """A raw file may give less than asked for, which S3's libraries take for the end."""
        parts = []
        while wanted > 0:
            part = self._from_source(wanted)
            if not part:
                raise self._changed("it has become shorter")
            parts.append(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _from_source(self, wanted: int) -> bytes | None:
        try:
            return self._source.read(wanted)
        except OSError as error:  # or it would be taken for trouble with the store
            raise self._changed(f"it can't be read any more: {error.strerror or error}") from error

    def _check(self) -> None:
        if self._from_source(1):
            raise self._changed("it has become longer")
        if self._digest.hexdigest() != self._content.sha256:
            raise self._changed("its SHA-256 is another")
        self._is_checked = True

    def _changed(self, why: str) -> ChangedError:
        return ChangedError(
            f"the file changed before it was stored: {why}",
            where=self._content.name,
            hint="Something still writes to it, or the disk is bad.",
        )


def sha256_of(source: Source, cancel: CancelToken | None = None) -> tuple[int, str]:
    """Size and SHA-256 of what is left to read; raises `CancelledError`."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        if cancel is not None:
            cancel.raise_if_cancelled()
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
