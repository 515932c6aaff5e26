"""A build's console, read by byte offset from the one file that the container writes.

A reader holds a file and an offset, nothing else: a slow one costs nobody anything, and memory
stays the same for a log of any size. The text is a stranger's; see `printable`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final, Self

from smidr_ci.files import open_untrusted
from smidr_ci.text import printable as without_controls

__all__ = ["CHUNK_BYTES", "LogReader", "follow", "lines_of", "printable"]

CHUNK_BYTES: Final = 256 * 1024
_TAIL_BLOCK: Final = 64 * 1024
_TAIL_LIMIT: Final = 16 * 1024 * 1024
_SHORTEST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 0.2
_CUT: Final = b" [... line cut]"
_SGR: Final = re.compile(r"(\x1b\[[0-9;]{0,32}m)")
_COLOUR: Final = r"[34]8;5;\d{1,3}|[34]8;2;\d{1,3};\d{1,3};\d{1,3}|[34][0-79]|9[0-7]|10[0-7]"
_WEIGHT: Final = r"0?[0-4]?|2[2-4]"
# ECMA-48: reset, weight, italic, underline and colours; not blink, inverse or concealed.
_KEPT_SGR: Final = re.compile(
    rf"\x1b\[(?:{_COLOUR}|{_WEIGHT})(?:;(?:{_COLOUR}|{_WEIGHT}))*m", re.ASCII
)
_NOT_A_LOG: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.ENXIO})


class LogReader:
    """Reads a log at any offset; a missing file reads as empty until it is there.

    So does anything but a regular file: no symlink is followed, no FIFO blocks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def size(self) -> int:
        """Bytes that are there now."""
        return os.fstat(self._file.fileno()).st_size if self._is_open() and self._file else 0

    def read(self, offset: int, max_bytes: int = CHUNK_BYTES) -> bytes:
        """At most so many bytes from this offset; empty when there are none yet."""
        if not self._is_open() or self._file is None:
            return b""
        return os.pread(self._file.fileno(), max_bytes, offset)

    def read_cached(self, offset: int, max_bytes: int = CHUNK_BYTES) -> bytes | None:
        """As `read`, but None when the disk would have to be waited for; may return less."""
        if not self._is_open() or self._file is None:
            return b""
        block = bytearray(max_bytes)
        try:
            # RWF_NOWAIT (preadv2(2), Linux 4.14): only what the page cache has.
            count = os.preadv(self._file.fileno(), [block], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:
                return None
            raise
        return bytes(memoryview(block)[:count])

    def handle(self) -> int | None:
        """A file descriptor of the caller's own for the open file; None while there is no file."""
        return os.dup(self._file.fileno()) if self._is_open() and self._file else None

    def was_replaced(self, offset: int) -> bool:
        """Whether the file shrank below the offset or is another one now; then start at 0."""
        if self._file is None:
            return False
        mine = os.fstat(self._file.fileno())
        try:
            current = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return mine.st_size < offset
        return mine.st_size < offset or not os.path.samestat(mine, current)

    def tail(self, lines: int, max_bytes: int = _TAIL_LIMIT) -> tuple[int, bytes]:
        """The last so many lines, but at most `max_bytes`, with the offset where they begin."""
        start, end = self._tail_range(lines, max_bytes)
        return start, self.read(start, end - start)

    def tail_start(self, lines: int, max_bytes: int = _TAIL_LIMIT) -> int:
        """The offset where the last so many lines begin; at most `max_bytes` before the end."""
        return self._tail_range(lines, max_bytes)[0]

    def _tail_range(self, lines: int, max_bytes: int) -> tuple[int, int]:
        end = self.size
        start, wanted = end, lines + (1 if self.read(end - 1, 1) == b"\n" else 0) if end else 0
        lowest = max(0, end - max_bytes)
        while start > lowest and wanted > 0:
            begin = max(lowest, start - _TAIL_BLOCK)
            block = self.read(begin, start - begin)
            for position in _newlines_backwards(block):
                wanted -= 1
                if wanted == 0:
                    begin += position + 1
                    break
            start = begin
        return start, end

    def _is_open(self) -> bool:
        if self._file is None:
            try:
                self._file = open_untrusted(self.path)
            except OSError as error:
                if error.errno in _NOT_A_LOG:
                    return False
                raise
        return True


def follow(
    path: Path,
    offset: int,
    is_finished: Callable[[], bool],
    wait: Callable[[float], object],
    max_bytes: int = CHUNK_BYTES,
) -> Iterator[tuple[int, bytes]]:
    """Chunks of a growing log with their offsets, until the build is over and all is delivered.

    `is_finished` is asked only when nothing new is there; `wait` gets 0.02 to 0.2 seconds, longer
    the longer nothing comes, and may return early. A log that is truncated or replaced is
    delivered again from offset 0.
    """
    pause, is_last_look = _SHORTEST_WAIT_S, False
    with LogReader(path) as reader:
        while True:
            chunk = reader.read(offset, max_bytes)
            if chunk:
                yield offset, chunk
                offset += len(chunk)
                pause = _SHORTEST_WAIT_S
                continue
            if reader.was_replaced(offset):
                reader.close()
                offset = 0
                continue
            if is_last_look:
                return
            # What was written before the end is all there after it: one more look.
            is_last_look = is_finished()
            if not is_last_look:
                wait(pause)
                pause = min(pause * 1.5, _LONGEST_WAIT_S)


def lines_of(chunks: Iterable[bytes], max_line_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Whole lines without their ends; the rest of an overlong one is dropped and marked so."""
    rest, is_cut = b"", False
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            if not is_cut:
                yield _cut(rest + line, max_line_bytes).removesuffix(b"\r")
            rest, is_cut = b"", False
        if not is_cut:
            rest += last
            if len(rest) > max_line_bytes:
                yield _cut(rest, max_line_bytes)
                rest, is_cut = b"", True
    if rest:
        yield _cut(rest, max_line_bytes)


def printable(raw: bytes, *, colours: bool = False) -> str:
    """A piece of a log as text that can't command a terminal; best called per line.

    Invalid UTF-8 is replaced; escape sequences, control characters and bidirectional overrides
    go, but plain colours when wanted; carriage returns become line ends.
    """
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    if "\x1b" not in text or not colours:
        return without_controls(text, keep_newlines=True)
    parts = _SGR.split(text)
    kept = [
        (part if _KEPT_SGR.fullmatch(part) else "")
        if index % 2
        else without_controls(part, keep_newlines=True)
        for index, part in enumerate(parts)
    ]
    return "".join(kept) + ("\x1b[0m" if any(kept[1::2]) else "")


def _cut(line: bytes, max_bytes: int) -> bytes:
    return line if len(line) <= max_bytes else line[:max_bytes] + _CUT


def _newlines_backwards(block: bytes) -> Iterator[int]:
    position = block.rfind(b"\n")
    while position >= 0:
        yield position
        position = block.rfind(b"\n", 0, position)
