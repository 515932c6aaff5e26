from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.builds.logbook import LogReader, follow, lines_of, printable


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as out:
        out.write(data)


class Script:
    """Does one step each time the follower waits; finished when none is left."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.steps.pop(0)()

    def is_finished(self) -> bool:
        return not self.steps


def followed(
    path: Path, script: Script, offset: int = 0, size: int = 1000
) -> list[tuple[int, bytes]]:
    return list(follow(path, offset, script.is_finished, script.wait, size))


def test_a_follower_gets_everything_from_its_offset_in_chunks(log: Path) -> None:
    script = Script(lambda: append(log, b"0123456789"), lambda: None, lambda: append(log, b"abc"))
    assert followed(log, script, offset=2, size=6) == [(2, b"234567"), (8, b"89"), (10, b"abc")]


def test_a_follower_of_a_build_without_a_log_ends(log: Path) -> None:
    assert followed(log, Script(lambda: None)) == []


def test_what_is_written_just_before_the_end_is_delivered(log: Path) -> None:
    def finish() -> bool:
        append(log, b"last words")
        return True

    assert list(follow(log, 0, finish, lambda _: None)) == [(0, b"last words")]


def test_a_follower_waits_longer_while_nothing_comes(log: Path) -> None:
    script = Script(*[lambda: None] * 20, lambda: append(log, b"x"), lambda: None)
    followed(log, script)
    assert script.waits[0] == 0.02
    assert script.waits[19] == 0.2
    assert script.waits[21] == 0.02


def test_a_truncated_log_is_delivered_again(log: Path) -> None:
    append(log, b"old text")
    script = Script(lambda: log.write_bytes(b"new"), lambda: None)
    assert followed(log, script) == [(0, b"old text"), (0, b"new")]


def test_a_replaced_log_is_delivered_again(log: Path) -> None:
    append(log, b"old")

    def rotate() -> None:
        log.rename(log.with_suffix(".1"))
        log.write_bytes(b"longer than before")

    assert followed(log, Script(rotate, lambda: None)) == [(0, b"old"), (0, b"longer than before")]


def test_a_removed_log_ends_with_the_build(log: Path) -> None:
    append(log, b"text")
    assert followed(log, Script(log.unlink, lambda: None)) == [(0, b"text")]


def test_links_pipes_and_directories_in_place_of_a_log_are_not_read(log: Path) -> None:
    (log.parent / "secret").write_bytes(b"password")
    makers: list[Callable[[], object]] = [
        lambda: log.symlink_to("secret"),
        lambda: os.mkfifo(log),
        log.mkdir,
    ]
    for make in makers:
        make()
        assert followed(log, Script(lambda: None)) == []
        assert LogReader(log).tail(5) == (0, b"")
        (log.rmdir if log.is_dir() and not log.is_symlink() else log.unlink)()


def test_a_follower_misses_nothing_of_a_fast_writer(log: Path) -> None:
    lines = [b"line %d\n" % number for number in range(200_000)]
    over = threading.Event()

    def write() -> None:
        with open(log, "wb") as out:
            out.writelines(lines)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    got = b"".join(chunk for _, chunk in follow(log, 0, over.is_set, over.wait))
    writer.join()
    assert got == b"".join(lines)


@given(
    lines=st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), max_size=30),
    ends=st.booleans(),
    count=st.integers(1, 35),
)
def test_a_tail_is_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, count: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    whole = b"\n".join(lines) + (b"\n" if ends else b"")
    path.write_bytes(whole)
    with LogReader(path) as reader:
        offset, got = reader.tail(count)
    assert whole[offset:] == got
    assert got == b"".join(re.findall(rb"[^\n]*\n|[^\n]+", whole)[-count:])


def test_a_tail_of_a_long_log_reads_little_and_keeps_to_its_limit(log: Path) -> None:
    with open(log, "wb") as out:
        out.truncate(10 << 30)  # sparse: reading it all would take a while
        out.seek(0, 2)
        out.write(b"\none\ntwo\n")
    reader = LogReader(log)
    assert reader.tail(2) == ((10 << 30) + 1, b"one\ntwo\n")
    assert len(reader.tail(9, max_bytes=100)[1]) == 100
    reader.close()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_lines_do_not_depend_on_chunk_borders(raw: bytes, cuts: list[int]) -> None:
    borders = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    chunks = [raw[a:b] for a, b in itertools.pairwise(borders)]
    expected = raw.split(b"\n")
    expected = expected[:-1] if expected[-1] == b"" else expected
    got = list(lines_of(chunks))
    assert [line.removesuffix(b"\r") for line in expected] == [
        line.removesuffix(b"\r") for line in got
    ]


def test_an_endless_line_is_cut_at_constant_memory() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 10_000
        yield b"\nnext\n"

    first, second = lines_of(chunks(), max_line_bytes=1000)
    assert first == b"x" * 1000 + b" [... line cut]"
    assert second == b"next"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain \xc3\xbc\ttext\n", "plain ü\ttext\n"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
        (b"\x1b[2J\x1b[1;1Hover", "over"),
        (b"10%\r20%\r\nend", "10%\n20%\nend"),
        (b"\xff\xfe\x00\x08\x9bm", "\ufffd\ufffd\ufffdm"),
        ("a\u202eb\u2066c\x9b31md".encode(), "abc31md"),
    ],
)
def test_a_log_cannot_command_a_terminal(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m.", "\x1b[1;31mred\x1b[0m.\x1b[0m"),
        (b"\x1b[38;5;200ma", "\x1b[38;5;200ma\x1b[0m"),
        (b"\x1b[38;2;1;2;3ma", "\x1b[38;2;1;2;3ma\x1b[0m"),
        (b"\x1b[8mhidden\x1b[5mblink\x1b[38;5;1;8mboth", "hiddenblinkboth"),
        (b"\x1b[2Kerase\x1b[31", "erase31"),
        (b"none", "none"),
    ],
)
def test_colours_may_stay_but_nothing_hidden(raw: bytes, shown: str) -> None:
    assert printable(raw, colours=True) == shown


@given(st.binary(max_size=200), st.booleans())
def test_printable_text_has_no_escapes_but_colours(raw: bytes, colours: bool) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", printable(raw, colours=colours))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
