"""Reasons why tasks ran again: what a stranger's container wrote, and the sentence shown of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.reasons import read_reasons, reason_sentence

_REASON = {"recipe": "hello", "task": "do_compile", "recipes": ["hello"], "recipe_count": 1}


def read(tmp_path: Path, *lines: object) -> tuple[Any, ...]:
    path = tmp_path / "rebuilt.jsonl"
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return read_reasons(path)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"kind": "file", "name": "/smidr/layers/meta/files/a.c"},
            "hello:do_compile, because file meta/files/a.c changed",
        ),
        (
            {"kind": "file", "name": "./a.c"},
            "hello:do_compile, because file a.c changed",
        ),
        (
            {"kind": "variable", "name": "CFLAGS", "old": "-O1", "new": "-O2"},
            "hello:do_compile, because variable CFLAGS changed from '-O1' to '-O2'",
        ),
        (
            {"kind": "variable", "name": "CFLAGS", "text": '"-O2 {+-g+}"'},
            'hello:do_compile, because variable CFLAGS changed: "-O2 {+-g+}"',
        ),
        (
            {"kind": "code", "name": "do_compile", "text": "@@ -1 +1 @@\n same\n-  a\n+  b"},
            "hello:do_compile, because the code of do_compile changed: - a; + b",
        ),
        (
            {"kind": "file", "name": "b.patch", "how": "added", "others": 2},
            "hello:do_compile, because file b.patch was added (and 2 more differences)",
        ),
        (
            {"kind": "forced", "recipes": ["hello", "init"], "recipe_count": 9},
            "hello:do_compile, init, and 7 more, because it was forced, or always runs (nostamp)",
        ),
    ],
)
def test_a_reason_reads_as_a_sentence(
    tmp_path: Path, more: dict[str, object], expected: str
) -> None:
    (reason,) = read(tmp_path, {**_REASON, **more})
    assert reason_sentence(reason) == expected


def test_values_of_secret_variables_are_not_kept(tmp_path: Path) -> None:
    values = {"old": "hunter2", "new": "hunter3"}
    (reason,) = read(tmp_path, {**_REASON, "kind": "variable", "name": "NPM_TOKEN", **values})
    assert "hunter" not in str(reason)
    assert reason_sentence(reason).endswith("variable NPM_TOKEN changed")


def test_what_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    odd = [
        "not json", "[" * 5000, [], {}, {"recipe": 1, "task": 2, "kind": 3},
        {**_REASON, "kind": "file", "name": {"a": 1}, "recipes": [1, None], "recipe_count": True},
    ]  # fmt: skip
    (reason,) = read(tmp_path, *odd)
    assert reason["recipes"] == ["hello"]
    assert reason_sentence(reason) == "hello:do_compile, because file  changed"


def test_a_flood_is_cut_and_escapes_are_taken_out(tmp_path: Path) -> None:
    evil = {**_REASON, "kind": "file", "name": "\x1b[31ma\x07\nb" + "x" * 5000}
    reasons = read(tmp_path, *[evil] * 100)
    assert len(reasons) == 5
    assert len(reasons[0]["name"]) <= 600
    assert not {"\x1b", "\n", "\x07"} & set(reason_sentence(reasons[0]))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(json.dumps({**_REASON, "kind": "file", "name": "x"}))
    (tmp_path / "rebuilt.jsonl").symlink_to("secret")
    with pytest.raises(OSError, match="symbolic"):
        read_reasons(tmp_path / "rebuilt.jsonl")
