"""Events folded into a snapshot, and the snapshot as a line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.bitbake.progress import Progress, SstateSummary, TaskFailure, render_line

FILE = "/smidr/layers/meta/recipes/app/app_1.0.bb"


def stats(**counts: int) -> dict[str, int]:
    names = ("total", "completed", "active", "failed", "setscene_total", "setscene_covered")
    return {**dict.fromkeys(names, 0), **counts}


def queued(task: str, *, setscene: bool = False, **counts: int) -> dict[str, Any]:
    return {
        "event": "queue-started",
        "task": task,
        "file": FILE,
        "mc": "",
        "setscene": setscene,
        "stats": stats(**counts),
    }


def worker(name: str, task: str, pid: int, **more: Any) -> dict[str, Any]:
    recipe = {"pn": "app", "pv": "1.0", "file": FILE, "mc": "", "log": f"/smidr/build/log.{task}"}
    return {"t": 100.0, "event": name, "task": task, "pid": pid, **recipe, **more}


STARTED: list[dict[str, Any]] = [
    {"event": "phase", "phase": "build", "targets": ["image"]},
    {"event": "ui", "bitbake": "2.8.1"},
    {"event": "parse-started", "total": 900},
    {"event": "parse-progress", "current": 300, "total": 900},
]
PARSED: list[dict[str, Any]] = [
    {"event": "parse-completed", "total": 900, "cached": 890, "parsed": 10, "errors": 0},
    {"event": "sstate-summary", "wanted": 20, "local": 12, "mirrors": 3, "missed": 5, "current": 7},
]


def test_parsing_is_followed() -> None:
    snapshot = Progress().fold(STARTED)
    assert (snapshot.stage, snapshot.recipes_done, snapshot.recipes) == ("parsing", 300, 900)
    assert snapshot.bitbake == "2.8.1"
    assert render_line(snapshot, 65.4) == "[1:05]  parsing 300/900 recipes"


def test_parse_figures_and_sstate_summary_are_kept() -> None:
    snapshot = Progress().fold([*STARTED, *PARSED])
    assert (snapshot.recipes_cached, snapshot.recipes_parsed) == (890, 10)
    assert snapshot.sstate == SstateSummary(20, 12, 3, 5, 7)


def test_running_tasks_come_and_go() -> None:
    running = [
        queued("do_compile", total=40, completed=9, active=1),
        worker("task-started", "do_compile", 7),
        worker("task-started", "do_fetch", 8, mc="other"),
    ]
    snapshot = Progress().fold([*STARTED, *PARSED, *running])
    line = render_line(snapshot, 3700)
    assert line == "[1:01:40]  tasks 9/40  sstate 15/20  app:do_compile, mc:other:app:do_fetch"
    later = snapshot.fold([worker("task-succeeded", "do_compile", 7)])
    assert [task.label for task in later.running.values()] == ["mc:other:app:do_fetch"]
    assert (later.tasks_completed, later.tasks_executed) == (10, 1)
    assert snapshot.tasks_executed == 0


def test_more_running_tasks_than_fit_are_counted() -> None:
    tasks = [worker("task-started", f"do_{n}", n) for n in range(1, 6)]
    snapshot = Progress().fold([queued("do_1", total=9), *tasks])
    assert render_line(snapshot, 0).endswith("app:do_1, app:do_2, app:do_3 +2")


def test_restored_tasks_are_counted_apart_from_executed_ones() -> None:
    snapshot = Progress().fold(
        [
            queued("do_package_setscene", setscene=True, setscene_total=4, setscene_covered=1),
            worker("task-started", "do_package_setscene", 3),
            worker("task-succeeded", "do_package_setscene", 3),
            worker("task-started", "do_rootfs", 4),
            worker("task-succeeded", "do_rootfs", 4),
            {"event": "tasks-summary", "attempted": 50, "unneeded": 48},
        ]
    )
    assert (snapshot.tasks_from_sstate, snapshot.tasks_executed) == (1, 1)
    assert (snapshot.setscene_total, snapshot.setscene_covered) == (4, 1)
    assert (snapshot.tasks_total, snapshot.tasks_completed, snapshot.stage) == (50, 50, "finished")


def test_setscene_counts_of_dunfell_are_understood() -> None:
    event = {**queued("do_x_setscene", setscene=True), "stats": {"total": 6, "completed": 2}}
    snapshot = Progress().fold([event])
    assert (snapshot.setscene_total, snapshot.setscene_covered) == (6, 2)
    assert snapshot.tasks_total == 0


def test_a_failure_told_twice_is_one_failure_with_all_that_is_known() -> None:
    failed = {
        "event": "queue-failed",
        "task": "do_compile",
        "file": FILE,
        "mc": "",
        "setscene": False,
        "exit_code": 137,
        "stats": stats(total=4, failed=1),
    }
    snapshot = Progress().fold([worker("task-failed", "do_compile", 9), failed])
    log = "/smidr/build/log.do_compile"
    assert snapshot.failures == (TaskFailure("do_compile", FILE, "app", "1.0", "", 137, log),)
    assert "1 failed" in render_line(snapshot, 1)


def test_a_worker_that_died_leaves_a_failure_without_log() -> None:
    failed = {"event": "queue-failed", "task": "do_compile", "file": FILE, "exit_code": 1}
    assert Progress().fold([failed]).failures == (TaskFailure("do_compile", FILE, exit_code=1),)


def test_a_setscene_task_that_failed_is_no_failure() -> None:
    snapshot = Progress().fold(
        [
            worker("task-started", "do_x_setscene", 3),
            worker("task-failed", "do_x_setscene", 3, silent=True),
            {"event": "queue-failed", "task": "do_x_setscene", "file": FILE, "setscene": True},
        ]
    )
    assert snapshot.failures == ()
    assert snapshot.setscene_failed == 1
    assert not snapshot.running


def test_errors_outside_of_tasks_are_kept_and_bounded() -> None:
    log = {"event": "log", "level": "error", "message": "ParseError"}
    warning = {"event": "log", "level": "warning", "message": "careful"}
    of_task = {"event": "log", "level": "error", "message": "x", "task": "do_compile"}
    missing = {"event": "no-provider", "item": "foo", "message": "Nothing PROVIDES 'foo'"}
    snapshot = Progress().fold([log, warning, of_task, missing, *[log] * 1000])
    assert snapshot.errors[:2] == ("ParseError", "Nothing PROVIDES 'foo'")
    assert len(snapshot.errors) == 100


def test_a_phase_counts_for_itself() -> None:
    fetched = [
        *STARTED,
        *PARSED,
        queued("do_fetch", total=5),
        worker("task-started", "do_fetch", 1),
    ]
    snapshot = Progress().fold([*fetched, {"event": "phase", "phase": "build"}])
    assert (snapshot.phase, snapshot.stage, snapshot.tasks_total) == ("build", "starting", 0)
    assert snapshot.sstate is None
    assert not snapshot.running


def test_the_end_is_seen() -> None:
    snapshot = Progress().fold([{"event": "stop", "step": "interrupt", "reason": "SIGTERM"}])
    assert render_line(snapshot, 5) == "[0:05]  stopping"
    ended = snapshot.fold([{"event": "phase-end", "phase": "build", "exit_code": 1}])
    assert (ended.stage, ended.exit_code) == ("ended", 1)


def test_a_strangers_names_can_not_draw_on_the_terminal() -> None:
    evil = worker("task-started", "do_\x1b[2J\rx", 1, pn="a\u202eb\nc")
    line = render_line(Progress().fold([queued("do_x", total=1), evil]), 0)
    assert line.isprintable()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_fields = st.sampled_from(
    [
        "t",
        "pid",
        "task",
        "pn",
        "file",
        "mc",
        "stats",
        "total",
        "current",
        "exit_code",
        "setscene",
        "message",
        "level",
        "log",
        "silent",
        "phase",
        "wanted",
        "attempted",
        "cached",
    ]
)
_events = st.sampled_from(
    [
        "phase",
        "ui",
        "parse-started",
        "parse-progress",
        "parse-completed",
        "process-started",
        "queue-started",
        "queue-failed",
        "task-started",
        "task-succeeded",
        "task-failed",
        "sstate-summary",
        "tasks-summary",
        "no-provider",
        "command-failed",
        "log",
        "stop",
        "phase-end",
        "unheard-of",
    ]
)


@given(st.lists(st.tuples(_events, st.dictionaries(_fields, _values, max_size=8)), max_size=10))
def test_no_event_however_strange_breaks_the_fold(events: list[tuple[str, dict[str, Any]]]) -> None:
    snapshot = Progress().fold([{**fields, "event": name} for name, fields in events])
    assert render_line(snapshot, 1.0).startswith("[0:01]")


def test_memory_is_bounded_whatever_is_reported() -> None:
    starts = [worker("task-started", f"do_{n}", n) for n in range(6000)]
    fails = [{**worker("task-failed", f"do_{n}", n), "log": "l" * 9999} for n in range(1500)]
    snapshot = Progress().fold([*starts, *fails])
    assert len(snapshot.running) <= 4096
    assert len(snapshot.failures) == 1000
    assert len(snapshot.failures[0].logfile) == 4096


@pytest.mark.parametrize("stage", ["starting", "preparing"])
def test_each_stage_has_words(stage: str) -> None:
    events = {"starting": [], "preparing": [{"event": "process-started", "name": "Initialising"}]}
    assert render_line(Progress().fold(events[stage]), 0).startswith("[0:00]  ")
