"""Which files carry a parse cache, and which only pretend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.bitbake.parse_cache import cache_files


def put(topdir: Path, *names: str) -> None:
    for name in names:
        path = topdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"cache")


def found(topdir: Path) -> list[str]:
    return [str(path) for path in cache_files(topdir)]


def test_a_fresh_directory_has_none(tmp_path: Path) -> None:
    assert cache_files(tmp_path) == []


def test_caches_of_every_release_are_found(tmp_path: Path) -> None:
    names = [
        "cache/bb_codeparser.dat",
        "cache/bb_unihashes.dat",
        "cache/local_file_checksum_cache.dat",
        "tmp/cache/bb_cache.dat." + "a" * 64,
        "tmp/cache/default-glibc/qemux86-64/bb_cache.dat." + "b" * 64,
        "tmp/cache/bb_cache.dat.mc.c0ffee",
    ]
    put(tmp_path, *names)
    assert found(tmp_path) == sorted(names)


def test_other_files_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "cache/hashserv.db", "cache/sanity_info", "tmp/work/bb_cache.dat.x", "tmp/x.dat")
    assert cache_files(tmp_path) == []


@pytest.mark.parametrize("name", ["tmp", "tmp/cache", "tmp/cache/inner"])
def test_a_linked_folder_is_not_entered(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    put(outside, "bb_cache.dat.x", "cache/bb_cache.dat.y", "inner/bb_cache.dat.z")
    link = tmp_path / "top" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert cache_files(tmp_path / "top") == []


def test_links_and_pipes_with_a_caches_name_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "tmp/cache/bb_cache.dat.real", "secret")
    (tmp_path / "tmp/cache/bb_cache.dat").symlink_to("bb_cache.dat.real")
    (tmp_path / "tmp/cache/bb_cache.dat.evil").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "tmp/cache/bb_cache.dat.pipe")
    assert found(tmp_path) == ["tmp/cache/bb_cache.dat.real"]
