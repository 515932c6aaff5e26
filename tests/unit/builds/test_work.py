"""What builds cost and what shared state spared: from events to figures and words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smidr_ci.bitbake.events import Event
from smidr_ci.builds.cache_stats import cache_stats, reuse_of
from smidr_ci.builds.database import Database
from smidr_ci.builds.effort import restored_bytes, tally
from smidr_ci.builds.history import previous_build
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState, SstateSummary, Work
from smidr_ci.builds.recipes import RecipeStore, work_of
from smidr_ci.builds.store import BuildStore
from smidr_ci.builds.worth import work_sentence
from smidr_ci.config.agent import AgentConfig
from smidr_ci.diagnosis.model import Diagnosis, Summary
from smidr_ci.home import Home
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.markdown import render_markdown
from smidr_ci.workspaces.kept_caches import KeptCaches

NOW = datetime(2026, 3, 4, tzinfo=UTC)
HASH = "ab12" + "0" * 60


def task(
    recipe: str, name: str, seconds: float, pid: int = 1, *, end: str = "succeeded"
) -> list[Event]:
    begun = {"event": "task-started", "t": 100.0, "pid": pid, "pn": recipe, "task": name}
    ended = {**begun, "event": f"task-{end}", "t": 100.0 + seconds}
    return [begun, ended]


def built(recipe: str = "zlib") -> list[Event]:
    return [*task(recipe, "do_compile", 60), *task(recipe, "do_install", 5)]


def restored(recipe: str = "zlib", seconds: float = 1) -> list[Event]:
    return task(recipe, "do_populate_sysroot_setscene", seconds)


def a_record(number: int, **changes: object) -> BuildRecord:
    record = BuildRecord(f"acme-{number:08x}", "acme", "p", ("image",), BuildState.COMPLETED, NOW)
    return replace(record, **changes)  # type: ignore[arg-type] # fields of a record


@pytest.fixture
def recipes(tmp_path: Path) -> Iterable[RecipeStore]:
    database = Database(tmp_path / "smidr.db")
    yield RecipeStore(database)
    database.close()


def test_seconds_are_summed_by_recipe_and_task() -> None:
    work = tally([*built(), *restored("bash", 2), *task("m4", "do_fetch", 3, end="failed")])
    assert work["zlib"].ran == {"do_compile": 60, "do_install": 5}
    assert (work["bash"].ran, work["bash"].restored) == ({}, {"do_populate_sysroot": 2})
    assert work["m4"].ran == {"do_fetch": 3}


def test_an_object_that_could_not_be_restored_counts_for_nothing() -> None:
    work = tally(task("zlib", "do_populate_sysroot_setscene", 1, end="failed"))
    assert (work["zlib"].ran, work["zlib"].restored) == ({}, {})


@pytest.mark.parametrize(
    "event",
    [
        {"event": "task-succeeded", "t": 101.0, "pid": 9, "pn": "a", "task": "do_b"},
        {"event": "task-succeeded", "t": "late", "pid": 1, "pn": "a", "task": "do_b"},
        {"event": "task-succeeded", "t": 101.0, "pid": 1, "pn": "../a", "task": "do_b"},
        {"event": "task-succeeded", "t": 101.0, "pid": 1, "pn": "a", "task": "rm -rf"},
        {"event": "task-succeeded", "t": 101.0, "pid": 1, "pn": ["a"], "task": {}},
    ],
)
def test_events_that_make_no_sense_are_passed_over(event: Event) -> None:
    begun = {"event": "task-started", "t": 100.0, "pid": 1, "pn": "a", "task": "do_b"}
    assert tally([begun, event]) == {}


def test_a_clock_that_jumps_gives_no_time_below_nothing_nor_beyond_a_week() -> None:
    assert tally(task("a", "do_b", -5))["a"].ran == {"do_b": 0}
    assert tally(task("a", "do_b", 1e12))["a"].ran == {"do_b": 7 * 86_400}


def test_what_was_spared_is_what_it_took_before_less_the_unpacking(recipes: RecipeStore) -> None:
    recipes.learn("acme-00000001", tally(built()), NOW)
    now = tally([*restored(), *restored("unknown"), *task("image", "do_rootfs", 7)])
    work = work_of(now, recipes.find(list(now)), 4096)
    assert work == Work(7, 64, restored=2, timed=1, restored_bytes=4096)


def test_a_task_that_ran_again_was_not_spared(recipes: RecipeStore) -> None:
    recipes.learn("acme-00000001", tally(built()), NOW)
    now = tally([*restored(), *task("zlib", "do_install", 4)])
    assert work_of(now, recipes.find(["zlib"]), 0).spared_s == 59


def test_a_recipe_is_counted_once_per_build_and_keeps_the_newest_times(
    recipes: RecipeStore,
) -> None:
    recipes.learn("acme-00000001", tally(built()), NOW)
    for _ in range(2):  # the second as after a crash
        recipes.learn("acme-00000002", tally(restored()), NOW + timedelta(days=1))
    later = NOW + timedelta(days=2)
    recipes.learn("acme-00000003", tally(task("zlib", "do_compile", 30)), later)
    found = recipes.find(["zlib", "other"])
    assert list(found) == ["zlib"]
    zlib = found["zlib"]
    assert (zlib.built, zlib.restored, zlib.last_built, zlib.last_used) == (2, 1, later, later)
    assert (zlib.times, zlib.total_s) == ({"do_compile": 30, "do_install": 5}, 35)


def test_the_costliest_recipes_come_first(recipes: RecipeStore) -> None:
    recipes.learn("acme-00000001", tally([*built(), *task("gcc", "do_compile", 900)]), NOW)
    for number in range(2, 22):
        recipes.learn(f"acme-{number:08x}", tally(restored()), NOW)
    assert [item.recipe for item in recipes.costliest(5)] == ["zlib", "gcc"]
    assert [item.recipe for item in recipes.costliest(1)] == ["zlib"]


def test_of_too_many_recipes_those_go_that_nobody_used(recipes: RecipeStore) -> None:
    many = [event for n in range(20_000) for event in task(f"r{n}", "do_compile", 1)]
    recipes.learn("acme-00000001", tally(many), NOW)
    recipes.learn("acme-00000002", tally(task("r7", "do_compile", 1)), NOW + timedelta(days=1))
    recipes.learn("acme-00000003", tally(built()), NOW + timedelta(days=2))
    assert {item.recipe for item in recipes.costliest(20_000)} == {"r7", "zlib"}


def test_the_size_of_restored_objects_is_found_by_their_stamps(tmp_path: Path) -> None:
    stamps, sstate = tmp_path / "tmp" / "stamps", tmp_path / "sstate"
    for place in ("core2/zlib", "x86_64/m4-native", "core2/other"):
        (stamps / place).mkdir(parents=True)
        (stamps / place / f"1.3.do_populate_sysroot_setscene.{HASH}").touch()
    for folder, size in (("ab/12", 10), ("debian-12/ab/12", 20)):
        (sstate / folder).mkdir(parents=True)
        name = f"sstate:x:y:1.3:r0::12:{HASH}_populate_sysroot.tar.zst"
        (sstate / folder / name).write_bytes(b"x" * size)
        (sstate / folder / f"{name}.siginfo").write_bytes(b"x" * 1000)
        (sstate / folder / name.replace("populate_sysroot", "package")).write_bytes(b"x" * 999)
    assert restored_bytes(tally(restored()), tmp_path / "tmp", sstate) == 30
    assert restored_bytes(tally(restored("bash")), tmp_path / "tmp", sstate) == 0
    assert restored_bytes(tally(restored()), tmp_path / "none", tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (Work(executed_s=3), "tasks ran for 3.0 s; nothing came from sstate"),
        (Work(1, 0, 2), "2 objects came from sstate, whose tasks have not run on this host yet"),
        (Work(90, 7300, 9, 9, 2_500_000), "2 min; sstate spared about 2 h 02 min (estimate: "),
        (Work(90, 60, 9, 4), "sstate spared about 1 min or more (estimate: "),
        (Work(90, 60, 9, 4), "last ran on this host, of 4 of 9 objects)"),
    ],
)
def test_an_estimate_says_that_it_is_one(work: Work, text: str) -> None:
    assert text in work_sentence(work)
    summary = render_markdown(
        Diagnosis((), Summary(succeeded=True)), facts_of(a_record(1, work=work))
    )
    assert f"Cost: {work_sentence(work)}." in summary


def test_what_was_built_once_counts_once() -> None:
    figures = {"sstate": SstateSummary(4, 3, 0, 1, 0), "work": Work(10, 20, 3, 3, 30)}
    shared = [a_record(n, shared_run="acme-000000ff", **figures) for n in range(3)]
    (reuse,) = reuse_of([*shared, a_record(9, **figures)], last=20)
    assert (reuse.builds, reuse.wanted, reuse.spared_s, reuse.restored_bytes) == (2, 8, 40, 60)


def test_the_build_before_is_not_another_of_the_same_run(tmp_path: Path) -> None:
    store = BuildStore(tmp_path / "smidr.db")
    first, second, third = (
        a_record(1),
        a_record(2, shared_run="acme-000000ff"),
        a_record(3, shared_run="acme-000000ff"),
    )
    for record in (first, second, third):
        store.add(record)
    found = previous_build(store, third)
    store.close()
    assert found is not None
    assert found.build_id == first.build_id


def test_private_caches_that_are_kept_show_in_the_stats(tmp_path: Path) -> None:
    host = Host(Home(tmp_path / "home"), AgentConfig(), {})
    kept = KeptCaches(host.home.private_caches / "kept", 1 << 30)
    for key in ("github:a/b#1", "github:a/b#2"):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "object").write_bytes(b"x" * 10_000)
        assert kept.bring_back(key, source)
    facts = {item.name: item for item in cache_stats(host).caches}
    host.store.close()
    private = facts["private"]
    assert (private.files, private.size_bytes >= 20_000) == (2, True)
    assert private.max_size == host.agent.trust.private_cache_size
