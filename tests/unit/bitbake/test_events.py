"""The reader of a file that recipes can write to as well."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.bitbake.events import MAX_LINE_BYTES, EventReader


def line(name: str, **fields: object) -> bytes:
    return json.dumps({"event": name, **fields}).encode() + b"\n"


def names(reader: EventReader) -> list[str]:
    return [event["event"] for event in reader.read()]


def test_a_missing_file_has_no_events_until_it_is_there(tmp_path: Path) -> None:
    reader = EventReader(tmp_path / "events.jsonl")
    assert reader.read() == []
    (tmp_path / "events.jsonl").write_bytes(line("a"))
    assert names(reader) == ["a"]
    assert reader.read() == []


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = line("a", text="x" * 100)
    path.write_bytes(whole[:50])
    reader = EventReader(path)
    assert reader.read() == []
    with path.open("ab") as file:
        file.write(whole[50:] + line("b"))
    assert names(reader) == ["a", "b"]


def test_a_new_reader_goes_on_at_a_stored_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("a") + line("b")[:-1])
    first = EventReader(path)
    assert names(first) == ["a"]
    with path.open("ab") as file:
        file.write(b"\n" + line("c"))
    assert names(EventReader(path, first.offset)) == ["b", "c"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"nonsense\n",
        b"[1]\n",
        b"7\n",
        b'{"event": 3}\n',
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 5000 + b"\n",
    ],
)
def test_garbage_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("a") + garbage + line("b"))
    assert names(EventReader(path)) == ["a", "b"]


@pytest.mark.parametrize("size", [MAX_LINE_BYTES + 1, 5 * MAX_LINE_BYTES])
def test_an_oversized_line_is_left_out_with_bounded_memory(tmp_path: Path, size: int) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("a") + b"x" * size)
    reader = EventReader(path)
    tracemalloc.start()
    assert names(reader) == ["a"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE_BYTES
    with path.open("ab") as file:
        file.write(b"x" * 10 + b"\n" + line("b"))
    assert names(reader) == ["b"]


def test_one_call_reads_a_bounded_part_of_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    one = line("log", message="m" * 10_000)
    path.write_bytes(one * 4000)
    reader = EventReader(path)
    counts = []
    while events := reader.read():
        counts.append(len(events))
    assert sum(counts) == 4000
    assert len(counts) > 1


def test_drain_reads_a_huge_file_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("log", message="m" * 10_000) * 4000)
    assert sum(1 for _ in EventReader(path).drain()) == 4000


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_regular_file_has_no_events(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events.jsonl"
    if kind == "symlink":
        (tmp_path / "other").write_bytes(line("a"))
        path.symlink_to(tmp_path / "other")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert EventReader(path).read() == []


@given(st.binary(max_size=4000), st.lists(st.integers(1, 500), max_size=20))
def test_any_bytes_in_any_pieces_give_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    content = line("first") + raw + b"\n" + line("last")
    path.write_bytes(content)
    at_once = EventReader(path).read()
    path.write_bytes(b"")
    reader, found, position = EventReader(path), [], 0
    for cut in (*cuts, len(content)):
        with path.open("ab") as file:
            file.write(content[position : position + cut])
        position += cut
        found += reader.read()
    assert found == at_once
    assert [event["event"] for event in (at_once[0], at_once[-1])] == ["first", "last"]
