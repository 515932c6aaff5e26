"""A stream that is made once and can be sent many times, without a copy of big files.

Each upload attempt must send an archive from its first byte, and packing it again would cost the
same hours of compression. So what is made is kept in a file as it goes out, but the bytes that are
a file's own: of these only their place is kept, and they are read again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from smidr_ci.artifacts.model import shown
from smidr_ci.errors import BuildFailedError, FailureKind
from smidr_ci.files import as_host_error, open_untrusted

__all__ = ["CHUNK_BYTES", "Buffers", "Bytes", "Piece", "Replay", "Source", "file_changed"]

CHUNK_BYTES: Final = 1024 << 10
"""Less would wake thread and receiver so often that it costs more than what they do."""
_IN_MEMORY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was when it was read first."""

    path: Path
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, info: os.stat_result) -> Source:
        """What `fstat` says of the open file."""
        return cls(path, info.st_ino, info.st_size, info.st_mtime_ns)


Bytes = bytes | memoryview
"""Good until the second one after it is asked for: big files go through two buffers in turns.

Fresh memory for each chunk costs more than to read a file and to send it.
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the stream; with a source they are the file's own bytes from `offset` on."""

    data: Bytes
    source: Source | None = None
    offset: int = 0


@dataclass(slots=True)
class _Run:
    source: Source | None
    offset: int
    length: int


class Replay:
    """Use it as a context; it is read by one thread at a time."""

    def __init__(self, pieces: Iterable[Piece], folder: Path) -> None:
        self._pieces = iter(pieces)
        self._folder = folder
        self._spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - closed by __exit__
        self._spooled = 0
        self._runs: list[_Run] = []
        self._failure: Exception | None = None
        self.produced_bytes = 0
        """How much of the stream was made so far."""
        self.is_complete = False
        """Whether `produced_bytes` is the whole stream's size."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()

    @property
    def spooled_bytes(self) -> int:
        """How much of the stream had to be kept."""
        return self._spooled

    def chunks(self) -> Iterator[Bytes]:
        """The whole stream from its first byte; what is not made yet is made now.

        Raises `BuildFailedError` when a file changes in the meantime, `HostError` on a full disk.
        """
        for run in tuple(self._runs):
            yield from self._recorded(run)
        while (piece := self._next()) is not None:
            yield piece.data

    def complete(self) -> int:
        """Make the rest without sending it; the stream's size in bytes."""
        while self._next() is not None:
            pass
        return self.produced_bytes

    def _next(self) -> Piece | None:
        """The next piece with content; what went wrong once goes wrong again."""
        if self._failure is not None:
            raise self._failure
        try:
            while (piece := next(self._pieces, None)) is not None:
                if piece.data:
                    self._keep(piece)
                    return piece
        except Exception as error:
            # A generator that has raised would only say that it is at its end.
            self._failure = error
            raise
        self.is_complete = True
        return None

    def _keep(self, piece: Piece) -> None:
        size = len(piece.data)
        last = self._runs[-1] if self._runs else None
        if piece.source is None:
            offset = self._spooled
            try:
                self._spool.seek(offset)
                self._spool.write(piece.data)
            except OSError as error:
                raise as_host_error(error, "can't pack the artifacts", self._folder) from error
            self._spooled += size
        else:
            offset = piece.offset
        if last is not None and last.source is piece.source and last.offset + last.length == offset:
            last.length += size
        else:
            self._runs.append(_Run(piece.source, offset, size))
        self.produced_bytes += size

    def _recorded(self, run: _Run) -> Iterator[Bytes]:
        if run.source is None:
            yield from self._from_spool(run.offset, run.length)
        else:
            yield from _from_file(run.source, run.offset, run.length)

    def _from_spool(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            self._spool.seek(offset)
            chunk = self._spool.read(min(CHUNK_BYTES, end - offset))
            offset += len(chunk)
            yield chunk


def file_changed(path: Path) -> BuildFailedError:
    """A file is not the same as when it was chosen."""
    return BuildFailedError(
        "the file changed while it was uploaded as an artifact",
        where=shown(str(path)),
        hint="End what writes to it before the job's script ends.",
        kind=FailureKind.ARTIFACTS,
    )


class Buffers:
    """Two buffers for the bytes of a file, in turns."""

    def __init__(self, most: int = CHUNK_BYTES) -> None:
        """`most` is enough for a small file."""
        size = min(most, CHUNK_BYTES)
        self._turn, self._next = memoryview(bytearray(size)), memoryview(bytearray(size))

    def fill(self, file: FileIO, most: int = CHUNK_BYTES) -> memoryview:
        """The file's next bytes, at most so many; empty at its end."""
        self._turn, self._next = self._next, self._turn
        return self._turn[: file.readinto(self._turn[:most]) or 0]


def _from_file(source: Source, offset: int, length: int) -> Iterator[memoryview]:
    try:
        file = open_untrusted(source.path)
    except OSError as error:
        raise file_changed(source.path) from error
    with file:
        if Source.of(source.path, os.fstat(file.fileno())) != source:
            raise file_changed(source.path)
        file.seek(offset)
        buffers = Buffers(length)
        while length:
            chunk = buffers.fill(file, length)
            if not chunk:
                raise file_changed(source.path)
            length -= len(chunk)
            yield chunk
