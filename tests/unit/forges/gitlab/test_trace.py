"""The trace on disk: lines with times, limits, checkpoints."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.forges.gitlab.timestamps import Timestamper
from smidr_ci.forges.gitlab.trace import OUTPUT, Trace
from tests.fakes.clock import FakeClock

HEAD = re.compile(rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE][ +]")


def trace_in(directory: Path, **options: Any) -> Trace:
    return Trace(directory, clock=FakeClock(), **options)


def whole(trace: Trace) -> bytes:
    trace.checkpoint()
    assert trace.crc32 == zlib.crc32(trace.path.read_bytes())
    assert trace.size == trace.path.stat().st_size
    return trace.read(0, trace.size)


def without_heads(data: bytes) -> bytes:
    shown = b""
    for line in re.findall(rb"[^\n]*\n", data):
        assert HEAD.match(line), line
        if line[31:32] == b"+":
            shown = shown.removesuffix(b"\n")
        shown += line[32:]
    return shown


def test_53_every_line_begins_with_its_time_and_long_ones_are_continued(tmp_path: Path) -> None:
    trace = trace_in(tmp_path)
    trace.write(OUTPUT, b"one\ntw")
    trace.write(OUTPUT, b"o\n10%\r20%" + b"\r")
    trace.write(OUTPUT, b"done\n" + ("ä" * 9000).encode() + b"\nlast")
    trace.end_output()
    lines = whole(trace).split(b"\n")[:-1]
    assert all(HEAD.match(line) and len(line) <= 32 + 8192 for line in lines)
    assert [line[31:32] for line in lines] == [b" ", b" ", b" ", b"+", b" ", b"+", b"+", b" "]
    assert without_heads(whole(trace)) == (
        b"one\ntwo\n10%\r20%\rdone\n" + ("ä" * 9000).encode() + b"\nlast\n"
    )


def test_51_invalid_utf8_is_replaced_before_it_is_counted(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, has_timestamps=False)
    trace.write(OUTPUT, b"a\xff\xc3")
    trace.write(OUTPUT, b"\xa4b\xc3")
    trace.end_output()
    assert whole(trace) == "a\ufffdäb\ufffd".encode()


def test_50_a_trace_over_its_limit_keeps_its_tail_and_says_so(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, limit_bytes=1024, has_timestamps=False)
    for number in range(3_000):
        trace.write(OUTPUT, f"line {number} ö\n".encode())
    trace.write(OUTPUT, b"ERROR: the cause\n")
    trace.end_output()
    trace.write_line(b"Job succeeded\n", is_needed=True)
    shown = whole(trace).decode()
    assert shown.startswith("line 0 ö\nline 1 ö\n")
    assert "exceeds the limit of 1024 bytes" in shown
    assert "bytes are left out here" in shown
    assert shown.endswith("ERROR: the cause\nJob succeeded\n")
    own = [line for line in shown.splitlines() if line.startswith(("line", "ERROR"))]
    assert len("\n".join(own).encode()) <= 1024


def test_a_line_without_end_is_cut_where_a_character_ends(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, limit_bytes=1024, has_timestamps=False)
    trace.write(OUTPUT, b"x" + "ö".encode() * 100_000)
    trace.end_output()
    assert "\ufffd" not in whole(trace).decode()


def test_secrets_are_masked_across_writes_and_in_the_runners_own_lines(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, secrets=["hunter22"], has_timestamps=False)
    trace.write(OUTPUT, b"pass hun")
    trace.write_line(b"login with hunter22\n")
    trace.write(OUTPUT, b"ter22 ok\n")
    trace.end_output()
    assert b"hunter22" not in whole(trace)
    assert whole(trace).count(b"[MASKED]") == 2


def test_only_what_a_checkpoint_covers_may_be_sent(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, has_timestamps=False)
    trace.write(OUTPUT, b"a line\n")
    assert trace.size == 0
    assert trace.read(0, 100) == b""
    trace.checkpoint()
    assert trace.read(2, 100) == b"line\n"
    assert trace.read(700, 100) == b""


@pytest.mark.parametrize("limit", [400, 100_000])
@pytest.mark.parametrize("checkpoint_every", [1, 7, 50])
def test_after_a_kill_at_any_moment_nothing_is_lost_or_doubled(
    tmp_path: Path, checkpoint_every: int, limit: int
) -> None:
    source = b"".join(b"line %d hunter22 \xc3\xa4\n" % number for number in range(40))

    def run(directory: Path, *, is_killed: bool) -> bytes:
        directory.mkdir()
        options: dict[str, Any] = {"secrets": ["hunter22"], "limit_bytes": limit}
        trace = trace_in(directory, **options)
        steps = 0
        while trace.mark("log") < len(source):
            offset = trace.mark("log")
            trace.write(OUTPUT, source[offset : offset + 13], log=offset + 13)
            steps += 1
            if steps % checkpoint_every == 0:
                trace.checkpoint()
                sent = trace.read(0, trace.size)
                trace.write(OUTPUT, source[offset + 13 : offset + 26], log=offset + 26)
                if is_killed:
                    trace.close()
                    trace = trace_in(directory, **options)
                assert trace.read(0, len(sent)) == sent
        trace.end_output()
        shown = whole(trace)
        trace.close()
        return shown

    assert run(tmp_path / "killed", is_killed=True) == run(tmp_path / "calm", is_killed=False)


def test_a_trace_that_lost_bytes_goes_on_behind_what_the_server_has(tmp_path: Path) -> None:
    trace = trace_in(tmp_path, has_timestamps=False)
    trace.write(OUTPUT, b"0123456789\n")
    trace.checkpoint()
    trace.close()
    (tmp_path / "trace").write_bytes(b"0123")
    trace = trace_in(tmp_path, has_timestamps=False)
    assert trace.size == 11
    trace.skip_to(20)
    trace.write(OUTPUT, b"after\n")
    assert whole(trace)[20:] == b"after\n"


def test_a_stamper_keeps_half_a_character_over_a_restart() -> None:
    first, second = (Timestamper(FakeClock(), 1) for _ in range(2))
    assert first.feed(b"a\xc3") == b""
    second.load(first.dump())
    assert without_heads(second.feed(b"\xa4\n")) == "aä\n".encode()
