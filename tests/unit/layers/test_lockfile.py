"""`smidr.lock` on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.errors import LayerError
from smidr_ci.layers.lockfile import LockEntry, make_lock, read_lock, write_lock
from smidr_ci.layers.urls import parse_url

OPTION_AS_COMMIT = (
    '{"smidr_lock": 1, "layers": {"a": {"git": "https://x.org/a", "ref": "HEAD", '
    '"commit": "--upload-pack=x"}}}'
)
ENTRY = LockEntry("poky", "https://example.com/poky", "branch:main", "a" * 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "smidr.lock"


def test_lock_comes_back_as_it_was_written(path: Path) -> None:
    other = LockEntry("a", "ssh://git@example.com/a.git", "tag:v1", "b" * 64)
    write_lock(path, make_lock([ENTRY, other]))
    found = read_lock(path)
    assert found is not None
    assert dict(found.entries) == {"poky": ENTRY, "a": other}


def test_same_pins_give_the_same_bytes_in_any_order(path: Path) -> None:
    other = LockEntry("a", "ssh://git@example.com/a.git", "tag:v1", "b" * 64)
    write_lock(path, make_lock([ENTRY, other]))
    first = path.read_bytes()
    write_lock(path, make_lock([other, ENTRY]))
    assert path.read_bytes() == first


def test_no_file_is_no_lock(path: Path) -> None:
    assert read_lock(path) is None


def test_pin_counts_for_its_own_url_and_ref_only() -> None:
    lock = make_lock([ENTRY])
    same = parse_url("https://EXAMPLE.com:443/poky.git/")
    assert lock.commit_for("poky", same, "branch:main") == "a" * 40
    assert lock.commit_for("poky", same, "branch:other") is None
    assert lock.commit_for("poky", parse_url("https://example.com/fork"), "branch:main") is None
    assert lock.commit_for("other", same, "branch:main") is None


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('{\n  "smidr_lock": 1,\n  "layers": {,\n', ":3:14", "damaged"),
        ("<<<<<<< HEAD\n", ":1:1", "damaged"),
        ("[]", "", "no lockfile"),
        ('{"smidr_lock": 2, "layers": {}}', "", "format 2"),
        ('{"smidr_lock": 1, "layers": {"a": {}, "a": {}}}', "", "'a' is there twice"),
        ('{"smidr_lock": 1, "layers": {\n "a": 1}}', ":2", "'a' is not an object"),
        (
            '{"smidr_lock": 1,\n"layers": {\n"a": {"git": "ext::sh", "ref": "HEAD"}}}',
            ":3",
            "no valid `git`",
        ),
        (
            OPTION_AS_COMMIT,
            ":1",
            "no valid `commit`",
        ),
        ('{"layers": ' + "[" * 100_000, "", "damaged"),
    ],
)
def test_damaged_lock_is_named_with_its_place(
    path: Path, text: str, place: str, words: str
) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LayerError, match=words) as caught:
        read_lock(path)
    assert caught.value.where == f"{path}{place}"


def test_lock_that_is_no_plain_file_is_refused(path: Path) -> None:
    os.symlink("/etc/passwd", path)
    with pytest.raises(LayerError, match="symbolic link"):
        read_lock(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LayerError, match="can't read"):
        read_lock(path)
