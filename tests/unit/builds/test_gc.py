"""Garbage collection of a whole host: caps, disks, and what builds may need."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.builds.gc import GcOptions, hold_caches, run_gc, wanted_bytes
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.needs import Needs
from smidr_ci.builds.uses import note_uses, used_hashes
from smidr_ci.caches.item_cache import tree_size
from smidr_ci.caches.layout import FreeSpace
from smidr_ci.caches.lru import Caps, Removal
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.caches import CacheLimits
from smidr_ci.errors import BusyError
from smidr_ci.trust import Trust
from tests.fakes.cache_home import CacheHome, object_name
from tests.fakes.disk import small_disk

DAY_S = 86_400.0


@pytest.fixture
def home(tmp_path: Path) -> CacheHome:
    return CacheHome(tmp_path / "home")


def gone_of(
    home: CacheHome, caps: Caps | None = None, *names: str, keep_builds: int = 0
) -> list[str]:
    told: list[Removal] = []
    chosen = names or ("sstate",)
    options = GcOptions(
        frozenset(chosen), {name: caps or Caps() for name in chosen}, keep_builds=keep_builds
    )
    run_gc(home.host, options, CancelToken(), tell=told.append)
    return sorted(item.path for item in told)


def hash_of(number: int) -> str:
    return object_name(number).rpartition(":")[2].partition("_")[0]


def note(home: CacheHome, record: BuildRecord, *numbers: int) -> None:
    tmp = home.root / "tmp" / record.build_id
    for number in numbers:
        home.file(tmp / "stamps" / "all" / "x" / f"1.0-r0.do_package.{hash_of(number)}", 0, 0)
    (home.host.home.builds / record.build_id).mkdir(parents=True)
    assert note_uses(home.host, record.build_id, tmp) == len(numbers)


@pytest.mark.parametrize("state", [BuildState.BUILDING, BuildState.QUEUED, BuildState.PREPARING])
def test_what_a_build_uses_that_is_not_over_stays(home: CacheHome, state: BuildState) -> None:
    home.sstate_object(1, days=3)
    home.sstate_object(2, days=1)
    home.record(1, days=2, state=state, ended=None)
    assert gone_of(home, Caps(max_size=0, max_age_s=0)) == [object_name(1)]


def test_a_waiting_build_may_want_what_the_last_of_its_project_used(home: CacheHome) -> None:
    for number, days in ((1, 50), (2, 20), (3, 50)):
        home.sstate_object(number, days)
    home.record(1, days=30)
    home.record(2, days=90, project="another")
    home.record(3, days=0, state=BuildState.QUEUED, started=None, ended=None)
    assert gone_of(home, Caps(max_age_s=0)) == sorted([object_name(1), object_name(3)])


def test_noted_uses_keep_exactly_what_the_last_build_used(home: CacheHome) -> None:
    for number, days in ((1, 50), (2, 20), (3, 50)):
        home.sstate_object(number, days)
    note(home, home.record(1, days=60), 1)
    home.record(3, days=0, state=BuildState.QUEUED, started=None, ended=None)
    assert gone_of(home, Caps(max_age_s=0)) == sorted([object_name(2), object_name(3)])


def test_without_builds_all_that_is_too_old_goes(home: CacheHome) -> None:
    home.sstate_object(1, days=50)
    home.record(1, days=60)
    assert gone_of(home, Caps(max_age_s=30 * DAY_S)) == [object_name(1)]


def test_keep_reachable_keeps_what_the_newest_builds_of_each_project_used(
    home: CacheHome,
) -> None:
    for number in range(1, 5):
        home.sstate_object(number, days=50)
    note(home, home.record(1, days=90), 1)
    note(home, home.record(2, days=80), 2)
    note(home, home.record(3, days=70, project="another"), 3)
    assert gone_of(home, Caps(max_age_s=0), keep_builds=1) == sorted(
        [object_name(1), object_name(4)]
    )


def test_a_strangers_build_says_nothing_of_what_must_stay(home: CacheHome) -> None:
    for number in (1, 2):
        home.sstate_object(number, days=50)
    note(home, home.record(1, days=90), 1)
    note(home, home.record(2, days=80, trust=Trust.UNTRUSTED), 2)
    assert gone_of(home, Caps(max_age_s=0), keep_builds=1) == [object_name(2)]


def test_without_a_note_all_stays_since_the_build_began_and_that_is_said(home: CacheHome) -> None:
    home.sstate_object(1, days=50)
    home.sstate_object(2, days=95)
    home.record(1, days=90)
    lines: list[str] = []
    needs = Needs(home.host, 1, lines.append)
    options = GcOptions(frozenset({"sstate"}), {"sstate": Caps(max_age_s=0)}, keep_builds=1)
    told: list[Removal] = []
    run_gc(home.host, options, CancelToken(), lines.append, told.append)
    assert [item.path for item in told] == [object_name(2)]
    assert "default-00000001" in lines[0]
    needs()
    needs()
    assert len(lines) == 2


def test_a_new_build_is_noticed_while_it_collects(home: CacheHome) -> None:
    needs = Needs(home.host)
    assert needs().is_quiet
    home.record(1, days=0, state=BuildState.BUILDING, ended=None)
    assert needs().is_quiet  # asked a moment ago
    home.clock.advance(3)
    assert not needs().is_quiet


def test_a_note_is_read_without_trust(home: CacheHome) -> None:
    record = home.record(1, days=1)
    folder = home.host.home.builds / record.build_id
    folder.mkdir(parents=True)
    assert used_hashes(home.host, record) is None
    for raw in (b"", b"no gzip", gzip.compress("größe".encode())):
        (folder / "sstate-used.gz").write_bytes(raw)
        assert not used_hashes(home.host, record)
    kept = replace(record, workspace=str(home.root / "kept"))
    (folder / "sstate-used.gz").unlink()
    home.file(home.root / f"kept/build/tmp/stamps/a/1.0.do_x_setscene.{hash_of(7)}", 0)
    home.file(home.root / "kept/build/tmp/stamps/a/1.0.do_fetch.sigdata.nothash", 0)
    assert used_hashes(home.host, kept) == frozenset({hash_of(7)})


def test_trees_and_mirrors_of_layers_go_by_last_use(home: CacheHome) -> None:
    old = home.layer_tree("old-000000000000", "0" * 40, 100)
    young = home.layer_tree("young-000000000000", "1" * 40, 10)
    unused = home.mirror("old-000000000000", 100)
    used = home.mirror("young-000000000000", 100)
    assert gone_of(home, None, "layers") == sorted([str(old), str(unused)])
    assert young.is_dir()
    assert used.is_dir()
    assert not old.exists()
    assert not unused.exists()


def test_a_leased_tree_stays_whatever_its_age(home: CacheHome) -> None:
    from smidr_ci.layers.tree import TreeStore

    tree = home.layer_tree("old-000000000000", "0" * 40, 100)
    store = TreeStore(tree.parent.parent, home.host.home.locks)
    with store.lease([tree]):
        home.age(tree / "lease", 100)
        assert gone_of(home, None, "layers") == []
    assert tree.is_dir()


def test_kept_workspaces_go_and_history_forgets_them(home: CacheHome) -> None:
    record = home.record(1, days=40, state=BuildState.FAILED)
    path = home.kept_workspace(record.build_id, days=40)
    home.host.store.update(record.build_id, workspace=str(path))
    assert gone_of(home, Caps(max_age_s=30 * DAY_S), "workspaces") == [str(path)]
    assert not path.exists()
    assert home.host.store.get(record.build_id).workspace == ""


def test_parse_caches_and_images_go_by_last_use(home: CacheHome) -> None:
    home.record(1, days=100, image="sha256:1")
    home.record(2, days=10, image="sha256:2")
    for name in ("sha256:1", "sha256:2", "sha256:of-another-home"):
        home.image(name, 200)
    home.image("sha256:base", 300, "base")
    cache = home.parse_cache("1" * 32, 40)
    assert gone_of(home, None, "images", "parse-cache") == [str(cache), "smidr-builder:sha256:1"]
    assert home.images.removed == ["sha256:1"]


def test_what_jobs_kept_goes_by_last_use_and_size(home: CacheHome) -> None:
    old, newer, newest = (home.job_cache(f"key{days}", days) for days in (40, 20, 10))
    assert gone_of(home, None, "job-caches") == [str(old)]
    assert not old.exists()
    size = tree_size(newest, CancelToken())
    assert gone_of(home, Caps(max_size=size), "job-caches") == [str(newer)]
    assert (newest / "cache.zip").is_file()


def test_no_image_goes_while_a_build_prepares(home: CacheHome) -> None:
    home.record(1, days=100, image="sha256:1")
    home.image("sha256:1", 200)
    home.record(2, days=0, state=BuildState.PREPARING, ended=None, project="another")
    assert gone_of(home, None, "images") == []


def test_a_short_disk_takes_the_oldest_of_all_its_caches(tmp_path: Path) -> None:
    agent = AgentConfig.model_validate({"cache": {"gc_below_free": 40, "gc_until_free": 50}})
    with small_disk(tmp_path / "disk", "4m") as disk:
        home = CacheHome(disk / "home", agent)
        for number in range(1, 21):
            home.sstate_object(number, days=number * 2, size=60_000)
            home.download(f"a{number}.tar.gz", days=number * 2 + 1, size=60_000)
        home.record(1, days=3)  # makes the database
        lines: list[str] = []
        told: list[Removal] = []
        done = run_gc(home.host, GcOptions(), CancelToken(), lines.append, told.append)
        assert {item.cache for item in told} == {"sstate", "downloads"}
        oldest = min(item.last_use_s for item in told)
        youngest = max(item.last_use_s for item in told)
        left = [path.stat().st_mtime for path in home.sstate.rglob("*.tar.zst")]
        assert oldest < youngest <= min(left)
        assert all("disk" in item.reason for item in told)
        assert sum(item.size_bytes for item in done) > 500_000
        home.host.store.close()


def test_how_much_a_disk_wants() -> None:
    limits = CacheLimits(gc_below_free=15, gc_until_free=20)
    assert wanted_bytes(FreeSpace(16, 100, 1, 1), limits) == 0
    assert wanted_bytes(FreeSpace(14, 100, 1, 1), limits) == 6


def test_two_collections_at_once_are_refused(home: CacheHome) -> None:
    with hold_caches(home.host), pytest.raises(BusyError, match="another process"):
        gone_of(home)
    assert gone_of(home) == []
