"""One pass over a log of any size at constant memory: only lines worth a look come out.

Big chunks are searched for a few dozen literal words, at the speed of `bytes.find`; everything
else of the diagnosis sees only the lines that hold one of them, with their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from smidr_ci.diagnosis.text import LogText, clean

__all__ = ["NEEDLES", "RARE_NEEDLES", "ByteSource", "Hit", "LogReader", "Neighbour"]

NEEDLES: Final[tuple[bytes, ...]] = (
    b"ERROR", b"rror:", b"rror ", b"WARNING: ", b"atal: ", b"FATAL: ", b"ailed", b"FAILED",
    b"*** ", b"annot ", b"nable to ", b"illed", b"No such ", b"not found", b"ndefined reference",
    b"o space left", b"ummary: ", b"BB_VERSION", b"xception: ", b"Interrupt",
)  # fmt: skip
"""A line without any of these is looked at only near an error. Each costs 0.05 s per 100 MB."""

RARE_NEEDLES: Final[tuple[bytes, ...]] = (
    b"rror[E", b"an't ", b"ould not ", b"ouldn't ", b"ndefined symbol", b"was skipped",
    b"isk full", b"ermission denied", b"egmentation fault", b"llegal instr", b"imed out",
    b"othing provides", b"onflict", b"ismatch", b"-applied",
    b"previously appl", b"not exist", b"already exist",
    b"ot permitted", b" PROVIDES ", b"dependency chain", b"not supported", b"not a directory",
    b"nimplemented:", b"too long", b"QA Issue", b"not recognized", b"nrecognized", b"dial tcp",
    b"service not known", b"omitting", b"the same file", b"file operand", b"bad_alloc",
    b"memory exhausted", b"SIGKILL", b"SIGABRT", b"was cancel", b"exceeded the max",
    b"malformed patch", b"garbage was", b"not apply", b"ing pseudo client", b"npm ERR!",
    b"gzip format", b"unexpected end", b" : Depends: ", b"wants to install", b"No match for",
    b"Unknown package", b"to overwrite", b"from install of", b"none of the prov", b"syntax error",
    b"panicked at", b".go:", b"required module", b"nconsistent vend", b" is not in ",
    b"multiple definition", b"recompile with", b"truncated to fit", b"overflowed by",
    b"DSO missing", b"BackendUnavailable", b"unexpected relocation",
    b"Go files", b"Go source files", b"nvalid option", b"undeclared",
    b"bytes too large", b"nspecified", b"requires ", b"unknown option",
    b"function do_", b"etrying server", b"locale setting",
)  # fmt: skip
"""Searched only in the first megabytes and where an ERROR is near: causes without a loud word."""

_ALL_NEEDLES: Final = (*NEEDLES, *RARE_NEEDLES)
_ERROR: Final = b"ERROR: "
_ALWAYS: Final = 8 << 20
"""Up to here everything is searched for: most logs end before."""
_RARE_BUDGET: Final = 24 << 20
"""So much of a log at most; one with errors all over says the same again and again."""
_CHUNK: Final = 1 << 20
_BEHIND: Final = 16 << 10
_AHEAD: Final = 48 << 10
_WINDOW_LIMIT: Final = 4 << 20


class ByteSource(Protocol):
    """Anything to read bytes from; `read` returns b"" at the end."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A line near a hit; `offset` is absolute."""

    number: int
    offset: int
    text: LogText
    is_complete: bool = True


class Hit:
    """One line that may matter, while its surroundings are still in memory."""

    __slots__ = ("_end", "_reader", "_start", "_text", "number", "raw")

    def __init__(self, reader: LogReader, start: int, end: int, number: int) -> None:
        self._reader = reader
        self._start = start
        self._end = end
        self.number = number
        self.raw = reader.window[start:end]
        self._text: LogText | None = None

    @property
    def text(self) -> LogText:
        """The line, cleaned when it is first asked for."""
        if self._text is None:
            self._text = clean(self.raw)
        return self._text

    @property
    def offset(self) -> int:
        """Of the line's first byte in the log."""
        return self._reader.base + self._start

    @property
    def is_complete(self) -> bool:
        """Whether the line has its end: a log that was cut ends in the middle of one."""
        return self._end < len(self._reader.window)

    def after(self, count: int) -> list[Neighbour]:
        """Up to `count` lines that follow, as far as they are in memory."""
        found: list[Neighbour] = []
        window, position, number = self._reader.window, self._end, self.number
        while len(found) < count and position < len(window):
            number += window[position] == _NEWLINE
            start = position + 1
            position = _line_end(window, start)
            if start >= len(window):
                break
            if window[start - 1 : start] == b"\r" and start == position:
                continue
            text = clean(window[start:position])
            whole = position < len(window)
            found.append(Neighbour(number, self._reader.base + start, text, whole))
        return found

    def before(self, count: int) -> list[Neighbour]:
        """Up to `count` lines before, oldest first."""
        found: list[Neighbour] = []
        window, end, number = self._reader.window, self._start - 1, self.number
        while len(found) < count and end > 0:
            start = _line_start(window, end)
            if start == 0 and self._reader.base:
                break
            number -= window[end] == _NEWLINE
            if start != end:
                text = clean(window[start:end])
                found.append(Neighbour(number, self._reader.base + start, text))
            end = start - 1
        return found[::-1]


_NEWLINE: Final = 0x0A


def _line_start(window: bytes, position: int) -> int:
    return (
        max(
            window.rfind(b"\n", 0, position), window.rfind(b"\r", max(0, position - 8192), position)
        )
        + 1
    )


def _line_end(window: bytes, position: int) -> int:
    end = window.find(b"\n", position)
    if end < 0:
        end = len(window)
    carriage = window.find(b"\r", position, end)
    return end if carriage < 0 else carriage


class LogReader:
    """Iterates over the hits of one log; `lines` and `bytes` are its size afterwards."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.window = b""
        self.base = 0
        self.lines = 0
        self.bytes = 0
        self._error_near = False
        self._rare_left = _RARE_BUDGET

    def __iter__(self) -> Iterator[Hit]:
        done = 0
        line_number = 1
        while True:
            data = self._source.read(_CHUNK)
            self.bytes += len(data)
            keep = max(0, done - _BEHIND)
            self.window = self.window[keep:] + data
            self.base += keep
            done -= keep
            limit = self._limit(at_end=not data)
            counted = done
            for start, end in self._spans(done, limit):
                line_number += self.window.count(b"\n", counted, start)
                counted = start
                yield Hit(self, start, end, line_number)
            line_number += self.window.count(b"\n", counted, limit)
            done = max(done, limit)
            if not data:
                break
        self.lines = line_number - (1 if not self.window or self.window.endswith(b"\n") else 0)

    def _limit(self, *, at_end: bool) -> int:
        """Up to where lines can be handled: those after it wait for what follows them."""
        if at_end:
            return len(self.window)
        limit = self.window.rfind(b"\n", 0, max(0, len(self.window) - _AHEAD)) + 1
        if limit == 0 and len(self.window) > _WINDOW_LIMIT:
            return len(self.window) - _AHEAD  # one endless line: taken in pieces
        return limit

    def _spans(self, begin: int, limit: int) -> list[tuple[int, int]]:
        window = self.window
        find = window.find
        spans: dict[int, int] = {}
        for needle in self._needles(limit):
            position = find(needle, begin, limit)
            while position >= 0:
                start = window.rfind(b"\n", begin, position) + 1 or begin
                if start in spans:
                    end = spans[start]
                else:
                    end = find(b"\n", position)
                    if end < 0:
                        end = len(window)
                    spans[start] = end
                position = find(needle, end, limit)
        return [
            (start, end)
            for start, end in self._split_carriages(sorted(spans.items()))
            if start >= begin
        ]

    def _needles(self, limit: int) -> tuple[bytes, ...]:
        before, self._error_near = self._error_near, _ERROR in self.window
        is_near = before or self._error_near or self.base + limit < _ALWAYS
        if not is_near or self._rare_left <= 0:
            return NEEDLES
        self._rare_left -= len(self.window)
        return _ALL_NEEDLES

    def _split_carriages(self, lines: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Lines that a progress bar wrote over: each part that still may matter."""
        window = self.window
        for start, end in lines:
            if window.find(b"\r", start, end - 1) < 0:
                yield start, end
                continue
            position = start
            for part in window[start:end].split(b"\r"):
                if any(needle in part for needle in _ALL_NEEDLES):
                    yield position, position + len(part)
                position += len(part) + 1
