from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator

import pytest

from smidr_ci.diagnosis.reader import LogReader


class Dribble:
    """Hands out at most `size` bytes at a time, as a pipe does."""

    def __init__(self, raw: bytes, size: int) -> None:
        self._stream = io.BytesIO(raw)
        self._size = size

    def read(self, _size: int, /) -> bytes:
        return self._stream.read(self._size)


class Pieces:
    """A log that exists only while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int, /) -> bytes:
        return next(self._pieces, b"")


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_hits_have_their_line_number_and_offset_however_the_log_arrives(size: int) -> None:
    raw = b"".join(b"line %d\n" % n for n in range(300)) + b"ERROR: here\nafter\n"
    hits = [(hit.number, hit.offset, hit.raw) for hit in LogReader(Dribble(raw, size))]
    assert hits == [(301, raw.index(b"ERROR"), b"ERROR: here")]


def test_neighbours_are_numbered_and_cleaned() -> None:
    raw = b"one\n12:00:00  two\r\nERROR: x\r\nthree\nfour\n"
    (hit,) = LogReader(io.BytesIO(raw))
    assert [(near.number, near.text.shown) for near in hit.before(5)] == [(1, "one"), (2, "two")]
    assert [(near.number, near.text.shown) for near in hit.after(5)] == [(4, "three"), (5, "four")]


def test_progress_bars_that_share_a_line_with_an_error_are_left_out() -> None:
    raw = b"Parsing: 1%\rParsing: 2%\rERROR: broken\rParsing: 3%\n"
    assert [hit.raw for hit in LogReader(io.BytesIO(raw))] == [b"ERROR: broken"]


def test_a_line_that_ends_with_the_log_is_not_complete() -> None:
    first, last = LogReader(io.BytesIO(b"ERROR: a\nERROR: b"))
    assert first.is_complete
    assert not last.is_complete


def test_lines_and_bytes_are_counted() -> None:
    reader = LogReader(io.BytesIO(b"a\nERROR: b\nc"))
    list(reader)
    assert (reader.lines, reader.bytes) == (3, 12)


@pytest.mark.parametrize("piece", [b"quiet line\n" * 90_000, b"x" * 1_000_000])
def test_memory_does_not_grow_with_the_log_even_without_line_ends(piece: bytes) -> None:
    tracemalloc.start()
    try:
        reader = LogReader(Pieces(piece for _ in range(40)))
        assert list(reader) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
