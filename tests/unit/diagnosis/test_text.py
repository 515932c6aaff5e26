from __future__ import annotations

import pytest

from smidr_ci.diagnosis.text import clean

ERROR = "ERROR: zlib-1.3-r0 do_compile: oe_runmake failed"


@pytest.mark.parametrize(
    "line",
    [
        f"2026-02-18T09:08:45.1234567Z {ERROR}",
        f"2026-02-18T09:08:45.123456Z 00O {ERROR}",
        f"2026-02-18T09:08:45.123456Z 01E+{ERROR}",
        f"[2026-02-18T09:08:45.123Z] {ERROR}",
        f"2026-02-18 09:08:45 - ERROR    - {ERROR}",
        f"[2026-02-18 09:08:45] {ERROR}",
        f"09:08:45  {ERROR}",
        f"[INFO] {ERROR}",
        f"[build-qemu] {ERROR}",
        f"builder_1  | {ERROR}",
        f"#12 345.6 {ERROR}",
        f"> >> {ERROR}",
        f"Feb  8 09:08:45 host bitbake[77]: {ERROR}",
        f"\x1b[31m{ERROR}\x1b[0m",
        f"\x1b]0;title\x07{ERROR}",
        f"# {ERROR}",
        f"    {ERROR}",
        f"Parsing recipes:  12% |###       | ETA:  0:00:04{ERROR}",
        f"{ERROR}   | ETA:  --:--:--",
        f"{ERROR}#########      | ETA:  0:00:00",
    ],
)
def test_prefixes_and_residue_of_terminals_and_ci_are_taken_off(line: str) -> None:
    assert clean(line.encode()).shown == ERROR


def test_the_mark_of_a_task_log_stays_in_the_message_and_not_in_the_body() -> None:
    text = clean(b"12:00:01  | src/a.c:3:1: error: no")
    assert text.in_block
    assert text.shown == "| src/a.c:3:1: error: no"
    assert text.body == "src/a.c:3:1: error: no"


def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    assert "ERROR: " in clean(b"\xff\xfe ERROR: \xc3\x28").shown


def test_a_very_long_line_keeps_its_end() -> None:
    text = clean(b"ERROR: " + b"x" * 50_000 + b" output: fatal: no route")
    assert text.shown.endswith("fatal: no route")
    assert len(text.shown) < 7000
