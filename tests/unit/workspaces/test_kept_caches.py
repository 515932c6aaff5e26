"""Private caches between the builds of one pull request."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from smidr_ci.workspaces.kept_caches import KeptCaches

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def kept(root: Path, size_bytes: int = 10 * MIB) -> KeptCaches:
    return KeptCaches(root, size_bytes, delete=shutil.rmtree)


def cache(folder: Path, size_bytes: int = 0, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "object").write_bytes(os.urandom(size_bytes) or text.encode())
    return folder


def test_the_next_build_of_the_same_pull_request_has_what_the_last_one_left(
    root: Path, tmp_path: Path
) -> None:
    assert kept(root).bring_back("forge:group/project!1", cache(tmp_path / "one", text="left"))
    assert list((tmp_path / "one").iterdir()) == []
    other, same = tmp_path / "other", tmp_path / "same"
    other.mkdir()
    same.mkdir()
    assert not kept(root).take("forge:group/project!2", other)
    assert kept(root).take("forge:group/project!1", same)
    assert (same / "object").read_text() == "left"


def test_two_builds_never_have_one_at_a_time(root: Path, tmp_path: Path) -> None:
    kept(root).bring_back("key", cache(tmp_path / "one"))
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert [kept(root).take("key", place) for place in (first, second)] == [True, False]


def test_the_newest_takes_the_place_of_an_older_one(root: Path, tmp_path: Path) -> None:
    kept(root).bring_back("key", cache(tmp_path / "one", text="old"))
    kept(root).bring_back("key", cache(tmp_path / "two", text="new"))
    target = tmp_path / "target"
    target.mkdir()
    assert kept(root).take("key", target)
    assert (target / "object").read_text() == "new"
    assert len(list(root.iterdir())) == 1


def test_who_came_least_recently_goes_over_the_quota(root: Path, tmp_path: Path) -> None:
    caches = kept(root, 5 * MIB)
    for number in range(4):
        assert caches.bring_back(f"key {number}", cache(tmp_path / str(number), 2 * MIB))
        for age, path in enumerate(sorted(root.iterdir(), key=lambda path: -path.stat().st_mtime)):
            os.utime(path, (1_000_000 - age, 1_000_000 - age))
    left = [number for number in range(4) if caches.take(f"key {number}", fresh(tmp_path))]
    assert left == [2, 3]


def test_one_that_is_bigger_than_the_quota_puts_nobody_out(root: Path, tmp_path: Path) -> None:
    caches = kept(root, 5 * MIB)
    caches.bring_back("small", cache(tmp_path / "small", MIB))
    assert not caches.bring_back("big", cache(tmp_path / "big", 6 * MIB))
    assert caches.take("small", fresh(tmp_path))


def test_a_key_can_not_lead_out_of_the_directory(root: Path, tmp_path: Path) -> None:
    assert kept(root).bring_back("../../../outside\0", cache(tmp_path / "one"))
    assert [path.parent for path in root.glob("*/cache")] == [next(root.iterdir())]


def test_without_a_key_nothing_is_kept(root: Path, tmp_path: Path) -> None:
    assert not kept(root).bring_back("", cache(tmp_path / "one"))
    assert not kept(root).take("", fresh(tmp_path))


def fresh(root: Path) -> Path:
    target = root / f"fresh-{len(list(root.iterdir()))}"
    target.mkdir()
    return target
