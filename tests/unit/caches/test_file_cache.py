"""sstate and downloads: what is one unit, what goes, and what strangers put there."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from smidr_ci.caches.file_cache import FileCache, downloads_cache, sstate_cache
from smidr_ci.caches.lru import Caps, Census, Keep, Removal, cut_of
from smidr_ci.caches.units import SstateName, is_half_written, unit_of
from smidr_ci.caches.walk import MAX_DEPTH
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError
from tests.fakes.cache_home import CacheHome, object_name

DAY_S = 86_400.0
NOTHING = Keep()


@pytest.fixture
def home(tmp_path: Path) -> CacheHome:
    return CacheHome(tmp_path / "home")


def collect(
    home: CacheHome, cache: FileCache, caps: Caps, keep: Keep = NOTHING, *, dry_run: bool = False
) -> list[Removal]:
    now_s, cancel, gone = home.clock.now().timestamp(), CancelToken(), list[Removal]()
    census = cache.measure(lambda: keep, now_s, cancel)
    cut = cut_of(census, caps, now_s)
    cache.remove(cut, lambda: keep, now_s, cancel, gone.append, dry_run=dry_run)
    return sorted(gone, key=lambda item: item.path)


def files_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_an_object_goes_with_all_that_describes_it(home: CacheHome) -> None:
    old = home.sstate_object(1, days=40)
    home.file(old.with_name(f"{old.name}.sig"), 40)
    home.file(old.with_name(f"{old.name}.done"), 40)
    young = home.sstate_object(2, days=2)
    gone = collect(home, sstate_cache(home.sstate), Caps(max_age_s=30 * DAY_S))
    assert [item.path for item in gone] == [object_name(1)]
    assert "not used since" in gone[0].reason
    assert files_below(home.sstate) == {
        object_name(2), f"{object_name(2)}.siginfo"
    }  # fmt: skip
    assert young.exists()


def test_an_object_is_as_young_as_the_youngest_of_its_files(home: CacheHome) -> None:
    path = home.sstate_object(1, days=40)
    home.age(path.with_name(f"{path.name}.siginfo"), 1)
    assert collect(home, sstate_cache(home.sstate), Caps(max_age_s=30 * DAY_S)) == []


def test_over_its_size_the_least_recently_used_goes_until_it_fits(home: CacheHome) -> None:
    for number in range(10):
        home.sstate_object(number, days=number, size=8000)
    cache = sstate_cache(home.sstate)
    size = cache.measure(lambda: NOTHING, home.clock.now().timestamp(), CancelToken()).size_bytes
    gone = collect(home, cache, Caps(max_size=size * 7 // 10))
    assert {item.path for item in gone} == {object_name(number) for number in (7, 8, 9)}


def test_of_what_was_used_in_the_same_second_only_as_much_goes_as_must(home: CacheHome) -> None:
    for number in range(10):
        home.sstate_object(number, days=5, size=8000)
    cache = sstate_cache(home.sstate)
    size = cache.measure(lambda: NOTHING, home.clock.now().timestamp(), CancelToken()).size_bytes
    assert len(collect(home, cache, Caps(max_size=size // 2))) == 5


def test_a_dry_run_tells_the_same_and_removes_nothing(home: CacheHome) -> None:
    for number in range(6):
        home.sstate_object(number, days=number * 10)
    cache, caps = sstate_cache(home.sstate), Caps(max_age_s=25 * DAY_S)
    before = files_below(home.sstate)
    told = collect(home, cache, caps, dry_run=True)
    assert files_below(home.sstate) == before
    assert collect(home, cache, caps) == told
    assert len(told) == 3


def test_what_builds_may_need_stays_by_time_and_by_hash(home: CacheHome) -> None:
    for number, days in ((1, 40), (2, 40), (3, 10)):
        home.sstate_object(number, days)
    since = home.clock.now().timestamp() - 20 * DAY_S
    parsed = SstateName.parse(Path(object_name(2)).name)
    assert parsed is not None
    keep = Keep(since_s=since, hashes=frozenset({parsed.unihash}))
    gone = collect(home, sstate_cache(home.sstate), Caps(max_size=0, max_age_s=0), keep)
    assert [item.path for item in gone] == [object_name(1)]


def test_folders_in_which_nothing_is_old_enough_are_not_looked_into_again(
    home: CacheHome,
) -> None:
    old, young = home.sstate_object(1, days=40), home.sstate_object(2, days=1)
    cache, cancel = sstate_cache(home.sstate), CancelToken()
    now_s = home.clock.now().timestamp()
    cut = cut_of(cache.measure(lambda: NOTHING, now_s, cancel), Caps(max_size=12_000), now_s)
    assert cut.spares(str(young.parent.relative_to(home.sstate)))
    assert not cut.spares(str(old.parent.relative_to(home.sstate)))
    assert not cut.spares("a folder that was not there")
    assert cache.remove(cut, lambda: NOTHING, now_s, cancel).units == 1
    assert young.exists()
    assert not old.exists()


def test_what_is_used_between_the_two_looks_stays(home: CacheHome) -> None:
    path = home.sstate_object(1, days=40)
    cache, cancel = sstate_cache(home.sstate), CancelToken()
    now_s = home.clock.now().timestamp()
    census = cache.measure(lambda: NOTHING, now_s, cancel)
    cut = cut_of(census, Caps(max_size=0), now_s)
    home.age(path, 0)
    assert cache.remove(cut, lambda: NOTHING, now_s, cancel).units == 0
    assert path.exists()


def test_empty_folders_go_only_while_no_build_runs_and_in_a_cache_of_ones_own(
    home: CacheHome,
) -> None:
    def folders_after(cache: FileCache, keep: Keep) -> int:
        home.sstate_object(1, days=40)
        collect(home, cache, Caps(max_age_s=DAY_S), keep)
        return sum(path.is_dir() for path in home.sstate.rglob("*"))

    assert folders_after(sstate_cache(home.sstate), Keep(is_quiet=False)) == 2
    assert folders_after(sstate_cache(home.sstate, is_ours=False), NOTHING) == 2
    assert folders_after(sstate_cache(home.sstate), NOTHING) == 0
    assert home.sstate.is_dir()


def test_what_killed_builds_left_half_written_goes_after_a_day(home: CacheHome) -> None:
    for days in (0.5, 2):
        home.file(home.sstate / f"{object_name(1)}.pid{days}".replace(".5", "5"), days)
    gone = collect(home, sstate_cache(home.sstate), Caps())
    assert [item.reason for item in gone] == ["left half-written by a build that was killed"]


def test_nothing_outside_is_touched_through_links(home: CacheHome, tmp_path: Path) -> None:
    outside = home.file(tmp_path / "outside" / Path(object_name(1)).name, 400)
    home.sstate.mkdir()
    (home.sstate / "ab").symlink_to(outside.parent)
    link = home.sstate / "cd" / Path(object_name(2)).name
    link.parent.mkdir()
    link.symlink_to(outside)
    moment = home.clock.now().timestamp() - 400 * DAY_S
    os.utime(link, (moment, moment), follow_symlinks=False)
    collect(home, sstate_cache(home.sstate), Caps(max_age_s=DAY_S))
    assert outside.read_bytes()
    assert not link.is_symlink()
    assert (home.sstate / "ab").is_symlink()


def test_a_folder_swapped_for_a_link_is_not_gone_into(home: CacheHome, tmp_path: Path) -> None:
    outside = home.file(tmp_path / "outside" / "x", 400).parent
    home.sstate_object(1, days=400)
    first = home.sstate / object_name(1)[:2]

    def swap() -> Keep:
        if not first.is_symlink():
            first.rename(tmp_path / "moved")
            first.symlink_to(outside)
        return NOTHING

    now_s, cancel = home.clock.now().timestamp(), CancelToken()
    cut = cut_of(Census(), Caps(max_age_s=DAY_S), now_s)
    sstate_cache(home.sstate).remove(cut, swap, now_s, cancel)
    assert (outside / "x").exists()


def test_pipes_odd_names_and_deep_folders_do_not_stop_it(home: CacheHome) -> None:
    home.sstate.mkdir()
    os.mkfifo(home.sstate / "pipe")
    home.age(home.sstate / "pipe", 400)
    odd = os.fsencode(home.sstate) + b"/\xff\n-rf"
    Path(os.fsdecode(odd)).touch()
    home.age(Path(os.fsdecode(odd)), 400)
    deep = home.sstate
    for _ in range(MAX_DEPTH + 20):
        deep /= "d"
        deep.mkdir()
    home.file(deep / "x", 400)
    collect(home, sstate_cache(home.sstate), Caps(max_age_s=DAY_S))
    assert files_below(home.sstate) == set()


def test_a_time_in_the_future_does_not_keep_a_file_for_ever(home: CacheHome) -> None:
    path = home.sstate_object(1, days=-10_000)
    home.clock.advance(10 * 365 * DAY_S)  # the kernel's own time of change is today's
    home.age(path, -10_000)
    home.age(path.with_name(f"{path.name}.siginfo"), 50)
    assert len(collect(home, sstate_cache(home.sstate), Caps(max_age_s=DAY_S))) == 1


def test_a_cancel_stops_it(home: CacheHome) -> None:
    home.sstate_object(1, days=40)
    cancel = CancelToken()
    cancel.cancel("enough")
    with pytest.raises(CancelledError, match="enough"):
        sstate_cache(home.sstate).measure(lambda: NOTHING, 1e9, cancel)


def test_a_cache_that_is_not_there_is_empty(home: CacheHome) -> None:
    found = sstate_cache(home.sstate).measure(lambda: NOTHING, 1e9, CancelToken())
    assert (found.files, found.size_bytes) == (0, 0)


def test_a_download_goes_with_its_stamp_and_a_mirror_as_a_whole(home: CacheHome) -> None:
    home.download("old.tar.gz", days=90)
    home.download("young.tar.gz", days=2)
    home.git_download("example.com.old.git", 90)
    young = home.git_download("example.com.young.git", 2)
    home.file(home.downloads / "uninative" / "abc" / "x.tar.xz", 90)
    home.file(home.downloads / "CACHEDIR.TAG", 900)
    gone = collect(home, downloads_cache(home.downloads), Caps(max_age_s=30 * DAY_S))
    assert [item.path for item in gone] == [
        "git2/example.com.old.git", "old.tar.gz", "uninative"
    ]  # fmt: skip
    assert sorted(path.name for path in home.downloads.iterdir()) == [
        "CACHEDIR.TAG", "git2", "young.tar.gz", "young.tar.gz.done"
    ]  # fmt: skip
    assert (young / "HEAD").exists()
    assert [path.name for path in home.downloads.glob("git2/*")] in (
        ["example.com.young.git", "example.com.young.git.done"],
        ["example.com.young.git.done", "example.com.young.git"],
    )


def test_a_download_that_a_build_fetches_now_stays(home: CacheHome) -> None:
    path = home.download("busy.tar.gz", days=90)
    cache, caps = downloads_cache(home.downloads), Caps(max_age_s=30 * DAY_S)
    with open(home.downloads / "busy.tar.gz.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home.age(home.downloads / "busy.tar.gz.lock", 90)
        assert collect(home, cache, caps) == []
    assert path.exists()
    assert len(collect(home, cache, caps)) == 1
    assert files_below(home.downloads) == set()


def test_builds_that_write_and_use_objects_meanwhile_lose_nothing(home: CacheHome) -> None:
    for number in range(300):
        home.sstate_object(number, days=40)
    stop, failures = threading.Event(), list[str]()
    used = [home.sstate / object_name(number) for number in range(0, 300, 3)]
    for path in used:
        home.age(path, 0)

    def build() -> None:
        number = 1000
        while not stop.is_set():
            path = home.sstate_object(number, days=0)
            if not path.exists():
                failures.append(str(path))
            number += 1

    thread = threading.Thread(target=build)
    thread.start()
    try:
        collect(home, sstate_cache(home.sstate), Caps(max_age_s=DAY_S), Keep(is_quiet=False))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert all(path.exists() for path in used)
    assert not (home.sstate / object_name(1)).exists()


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("sstate:x.tar.zst.siginfo", "sstate:x.tar.zst"),
        ("sstate:x.tar.zst.siginfo.done", "sstate:x.tar.zst"),
        ("a.tar.gz.done", "a.tar.gz"),
        (".done", ".done"),
        ("a.tar.gz", "a.tar.gz"),
    ],
)
def test_files_belong_to_what_they_describe(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_only_unfinished_objects_count_as_half_written() -> None:
    whole = Path(object_name(1)).name
    assert not is_half_written(whole)
    assert not is_half_written(f"{whole}.siginfo")
    assert is_half_written(f"{whole}.aB3dE6gH")
    assert is_half_written("sigtask.k2j3h4")
