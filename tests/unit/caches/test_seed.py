"""Private downloads that lead to the shared ones, whatever a stranger left in them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.caches.seed import seed_downloads
from smidr_ci.containers.runtime import User
from tests.fakes.git_repository import GitRepository

ME = User(os.getuid() or 1000, os.getgid() or 1000)


class Downloads:
    """A shared and a private directory; the container would see the shared one elsewhere."""

    def __init__(self, root: Path) -> None:
        self.shared, self.private = root / "shared", root / "private"
        self.shared.mkdir()
        self.private.mkdir()

    def seed(self) -> None:
        seed_downloads(self.shared, self.private, PurePosixPath(self.shared), ME)

    def fetched(self, name: str, text: str = "text") -> Path:
        path = self.shared / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path)


def test_files_are_links_and_stamps_are_copies_with_their_times(downloads: Downloads) -> None:
    downloads.fetched("a.tar.gz")
    downloads.fetched("npm2/b.tgz")
    os.utime(downloads.fetched("a.tar.gz.done", "sums"), ns=(5, 5))
    downloads.seed()
    link, stamp = downloads.private / "a.tar.gz", downloads.private / "a.tar.gz.done"
    assert os.readlink(link) == str(downloads.shared / "a.tar.gz")
    assert (downloads.private / "npm2" / "b.tgz").is_symlink()
    assert not stamp.is_symlink()
    assert stamp.read_text() == "sums"
    assert stamp.stat().st_mtime_ns == 5
    assert downloads.shared.joinpath("a.tar.gz").stat().st_nlink == 1


def test_locks_half_written_files_and_working_copies_are_left_out(downloads: Downloads) -> None:
    for name in ("a.lock", "a.tar.gz.tmp", ".hidden", "svn/x/.svn/wc.db", "damaged/b.tgz"):
        downloads.fetched(name)
    downloads.seed()
    assert list(downloads.private.rglob("*")) == []


def test_a_git_repository_borrows_objects_and_takes_new_ones_for_itself(
    downloads: Downloads, tmp_path: Path
) -> None:
    upstream = GitRepository(tmp_path / "upstream")
    first = upstream.commit({"file": "1"})
    shared = downloads.shared / "git2" / "upstream"
    upstream.git("clone", "--quiet", "--bare", "--mirror", ".", str(shared))
    upstream.git("--git-dir", str(shared), "pack-refs", "--all")
    downloads.fetched("git2/upstream.done", "")
    before = sorted((path, path.stat().st_mtime_ns) for path in shared.rglob("*"))
    downloads.seed()

    own = downloads.private / "git2" / "upstream"
    assert upstream.git("--git-dir", str(own), "rev-parse", "main") == first
    assert upstream.git("--git-dir", str(own), "branch", "--contains", first) == "* main"
    assert not [path for path in (own / "objects").rglob("*") if path.suffix in {".pack", ".idx"}]
    second = upstream.commit({"file": "2"})
    upstream.git("--git-dir", str(own), "fetch", "--quiet", "origin")
    assert upstream.git("--git-dir", str(own), "rev-parse", "main") == second
    assert sorted((path, path.stat().st_mtime_ns) for path in shared.rglob("*")) == before


def test_what_a_stranger_left_is_neither_followed_nor_replaced(
    downloads: Downloads, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    for name in ("a.tar.gz", "npm2/b.tgz", "git2/repository/packed-refs"):
        downloads.fetched(name)
    downloads.fetched("a.tar.gz.done", "sums")
    (downloads.private / "a.tar.gz").write_text("the stranger's own")
    (downloads.private / "a.tar.gz.done").symlink_to(outside / "precious")
    (downloads.private / "npm2").symlink_to(outside)
    (downloads.private / "git2").symlink_to(outside)
    downloads.seed()
    assert (downloads.private / "a.tar.gz").read_text() == "the stranger's own"
    assert (outside / "precious").read_text() == "precious"
    assert sorted(outside.iterdir()) == [outside / "precious"]
    # Links are made anew: a file that is gone must be fetched again, not written through a link.
    assert (downloads.private / "a.tar.gz.done").read_text() == "sums"
    assert (downloads.private / "npm2").is_dir()
    assert not (downloads.private / "npm2").is_symlink()


def test_links_to_files_that_are_gone_are_dropped(downloads: Downloads) -> None:
    downloads.fetched("a.tar.gz")
    downloads.seed()
    (downloads.shared / "a.tar.gz").unlink()
    downloads.seed()
    assert list(downloads.private.iterdir()) == []
