"""The index tells sizes without looking at files, and is never older than the folders."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from smidr_ci.caches.index import CacheIndex
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError
from tests.fakes.cache_home import CacheHome, object_name


class Clock:
    """Far enough in the future that no folder was changed just now."""

    def __init__(self) -> None:
        self.ns = (1 << 62) // 2

    def __call__(self) -> int:
        self.ns += 10**10
        return self.ns


@pytest.fixture
def home(tmp_path: Path) -> CacheHome:
    found = CacheHome(tmp_path / "home")
    for number in range(20):
        found.sstate_object(number, days=number + 1)
    return found


@pytest.fixture
def index(tmp_path: Path) -> CacheIndex:
    return CacheIndex(tmp_path / "index.db", Clock())


def test_it_counts_files_objects_bytes_and_uses(home: CacheHome, index: CacheIndex) -> None:
    found = index.refresh("sstate", home.sstate)
    assert (found.files, found.objects) == (40, 20)
    blocks = sum(path.stat().st_blocks for path in home.sstate.rglob("*") if path.is_file())
    assert found.size_bytes == blocks * 512
    now_s = home.clock.now().timestamp()
    assert round((now_s - found.oldest_use_s) / 86_400) == 20
    assert round((now_s - found.newest_use_s) / 86_400) == 1


def test_a_second_look_reads_no_folder_that_has_not_changed(
    home: CacheHome, index: CacheIndex
) -> None:
    before = index.refresh("sstate", home.sstate)
    # A change that no folder's time shows: a look at the files would find it.
    path = home.sstate / object_name(3)
    path.write_bytes(b"x" * 100_000)
    assert index.refresh("sstate", home.sstate) == before
    assert index.refresh("sstate", home.sstate, full=True).size_bytes > before.size_bytes


def test_new_changed_and_removed_folders_are_seen(home: CacheHome, index: CacheIndex) -> None:
    index.refresh("sstate", home.sstate)
    home.sstate_object(100, days=0)
    assert index.refresh("sstate", home.sstate).objects == 21
    (home.sstate / object_name(3)).unlink()
    assert index.refresh("sstate", home.sstate).files == 41
    first = home.sstate / object_name(5)[:2]
    first.rename(home.root / "gone")
    left = sum(path.is_file() for path in home.sstate.rglob("*"))
    assert index.refresh("sstate", home.sstate).files == left < 41


def test_a_folder_that_changed_just_before_the_look_is_looked_into_again(
    home: CacheHome, tmp_path: Path
) -> None:
    folder = (home.sstate / object_name(3)).parent
    now_ns = os.stat(folder).st_mtime_ns
    index = CacheIndex(tmp_path / "racy.db", lambda: now_ns)
    index.refresh("sstate", home.sstate)
    home.file(folder / "sstate:new", 0)
    os.utime(folder, ns=(now_ns, now_ns))  # within the same tick of the file system's clock
    assert index.refresh("sstate", home.sstate).files == 41


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_index_is_made_anew(home: CacheHome, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(content)
    assert CacheIndex(path, Clock()).refresh("sstate", home.sstate).files == 40
    assert CacheIndex(path, Clock()).refresh("sstate", home.sstate).files == 40
    with sqlite3.connect(path) as database:
        (count,) = database.execute("select count(*) from folders").fetchone()
    database.close()
    assert count > 20


def test_an_index_of_another_version_is_made_anew(home: CacheHome, tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    database = sqlite3.connect(path)
    database.execute("create table folders (other text)")
    database.execute("pragma user_version = 99")
    database.commit()
    database.close()
    assert CacheIndex(path, Clock()).refresh("sstate", home.sstate).files == 40


def test_where_no_index_can_be_written_it_still_counts(home: CacheHome, tmp_path: Path) -> None:
    index = CacheIndex(tmp_path / "missing" / "index.db", Clock())
    assert index.refresh("sstate", home.sstate).files == 40


def test_links_are_neither_followed_nor_counted_as_folders(
    home: CacheHome, index: CacheIndex, tmp_path: Path
) -> None:
    home.file(tmp_path / "outside" / "x", 1)
    (home.sstate / "link").symlink_to(tmp_path / "outside")
    found = index.refresh("sstate", home.sstate)
    assert found.files == 41
    first = home.sstate / object_name(5)[:2]
    inside = sum(path.is_file() for path in first.rglob("*"))
    first.rename(tmp_path / "moved")
    first.symlink_to(tmp_path / "moved")
    assert index.refresh("sstate", home.sstate).files == 41 - inside + 1


def test_each_cache_and_directory_has_entries_of_its_own(
    home: CacheHome, index: CacheIndex, tmp_path: Path
) -> None:
    home.download("a.tar.gz", 3)
    assert index.refresh("sstate", home.sstate).files == 40
    assert index.refresh("downloads", home.downloads).files == 2
    assert index.refresh("sstate", tmp_path / "elsewhere").files == 0
    assert index.refresh("sstate", home.sstate).files == 40


def test_a_cancel_stops_a_look(home: CacheHome, index: CacheIndex) -> None:
    cancel = CancelToken()
    cancel.cancel("enough")
    with pytest.raises(CancelledError):
        index.refresh("sstate", home.sstate, cancel)
