"""BitBake's events, by their attributes as the releases have them, become plain records."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from smidr_ci.bitbake.inside.translate import Translator, cut


def event(kind: str, **attributes: Any) -> object:
    """An object whose class has BitBake's name."""
    return type(kind, (SimpleNamespace,), {})(**attributes)


def record(level: int, message: str, *args: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("BitBake", level, "", 0, message, args, None)
    vars(made).update({"taskpid": 0, **extra})
    return made


def translate(*events: object) -> list[dict[str, Any]]:
    translator = Translator(now=lambda: 12.3456)
    found = [translator.translate(one) for one in events]
    return [one for one in found if one is not None]


def task(kind: str, pid: int = 7, **more: Any) -> object:
    names = {
        "_fn": "virtual:native:/l/app_1.0.bb",
        "_task": "do_compile",
        "_mc": "default",
        "pn": "app-native",
        "pv": "1.0",
        "logfile": "/t/log.do_compile.7",
        "pid": pid,
    }
    return event(kind, **{**names, **more})


def test_a_task_names_recipe_version_log_and_time() -> None:
    assert translate(task("TaskFailed")) == [
        {
            "t": 12.346,
            "event": "task-failed",
            "pn": "app-native",
            "pv": "1.0",
            "task": "do_compile",
            "file": "virtual:native:/l/app_1.0.bb",
            "mc": "",
            "pid": 7,
            "log": "/t/log.do_compile.7",
        }
    ]


def test_queue_and_worker_name_the_same_file_and_multiconfig() -> None:
    queue = event(
        "runQueueTaskFailed",
        taskfile="mc:other:virtual:native:/l/app_1.0.bb",
        taskname="do_compile",
        exitcode=137,
        stats=SimpleNamespace(total=9, completed=1, active=0, failed=1, skipped=0, other="x"),
    )
    failed, queued = translate(task("TaskFailed", _mc="other"), queue)
    assert [(one["mc"], one["file"], one["task"]) for one in (failed, queued)] == [
        ("other", "virtual:native:/l/app_1.0.bb", "do_compile")
    ] * 2
    assert queued["exit_code"] == 137
    assert queued["stats"] == {"total": 9, "completed": 1, "active": 0, "failed": 1, "skipped": 0}
    assert queued["setscene"] is False


def test_setscene_tasks_are_marked() -> None:
    started = event(
        "sceneQueueTaskStarted", taskfile="/l/a.bb", taskname="do_x_setscene", stats=None
    )
    assert translate(started)[0]["setscene"] is True


def test_a_log_record_says_whose_it_is_while_the_task_runs() -> None:
    before, within, after = (
        one
        for one in translate(
            record(logging.ERROR, "early", taskpid=7),
            task("TaskStarted"),
            record(logging.WARNING, "careful %s", "now", taskpid=7),
            task("TaskSucceeded"),
            record(logging.ERROR, "late", taskpid=7),
        )
        if one["event"] == "log"
    )
    assert "task" not in before
    assert (within["level"], within["message"]) == ("warning", "careful now")
    assert (within["pn"], within["task"]) == ("app-native", "do_compile")
    assert "task" not in after


@pytest.mark.parametrize(
    ("number", "level"),
    [(29, "warning"), (30, "warning"), (39, "error"), (40, "error"), (50, "critical")],
)
def test_bitbakes_own_levels_are_kept_apart(number: int, level: str) -> None:
    assert translate(record(number, "x"))[0]["level"] == level


def test_notes_are_not_recorded() -> None:
    assert translate(record(logging.INFO, "Running task 1 of 2"), record(28, "x")) == []


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        (
            (
                "Sstate summary: Wanted 20 Local 12 Mirrors 3 Missed 5 Current 7 "
                "(75% match, 81% complete)"
            ),
            [20, 12, 3, 5, 7],
        ),
        (
            "Sstate summary: Wanted 9 Found 4 Missed 5 Current 0 (44% match, 44% complete)",
            [9, 4, 0, 5, 0],
        ),
    ],
)
def test_the_sstate_summary_becomes_figures(line: str, figures: list[int]) -> None:
    found = translate(record(logging.INFO + 1, line))[0]
    assert found["event"] == "sstate-summary"
    assert [found[name] for name in ("wanted", "local", "mirrors", "missed", "current")] == figures


def test_the_tasks_summary_becomes_figures() -> None:
    text = "Tasks Summary: Attempted %d tasks of which %d didn't need to be rerun and 1 failed."
    assert translate(record(logging.INFO, text, 900, 890)) == [
        {"t": 12.346, "event": "tasks-summary", "attempted": 900, "unneeded": 890}
    ]


def test_parse_progress_is_throttled_but_start_and_end_are_not() -> None:
    clock = iter([float(n) / 100 for n in range(1000)])
    translator = Translator(now=lambda: next(clock))
    steps = [event("ParseProgress", current=n, total=100) for n in range(100)]
    shown = [one for step in steps if (one := translator.translate(step))]
    assert 3 <= len(shown) <= 10
    done = translator.translate(event("ParseCompleted", cached=1, parsed=2, errors=0, total=3))
    assert done is not None
    assert (done["cached"], done["parsed"], done["total"]) == (1, 2, 3)


def test_a_missing_provider_is_told_in_bitbakes_words() -> None:
    missing = type("NoProvider", (SimpleNamespace,), {"__str__": lambda _: "Nothing PROVIDES 'x'"})
    found = translate(missing(_item="x", _runtime=False))[0]
    assert (found["event"], found["message"]) == ("no-provider", "Nothing PROVIDES 'x'")


def test_a_python_exception_of_a_recipe_is_part_of_the_message() -> None:
    one = record(logging.ERROR, "ExpansionError", bb_exc_formatted=["Traceback\n", "  line\n"])
    assert translate(one)[0]["message"] == "ExpansionError\nTraceback\n  line\n"


def test_a_broken_format_string_of_a_recipe_does_no_harm() -> None:
    assert translate(record(logging.ERROR, "%d %s", "x"))[0]["message"] == "%d %s"


def test_unknown_events_are_passed_over() -> None:
    assert translate(event("HeartbeatEvent"), event("TaskProgress", progress=5), object()) == []


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = "begin" + "x" * 200_000 + "end"
    assert len(cut(text)) <= 64 * 1024
    assert cut(text).startswith("begin")
    assert cut(text).endswith("end")
    assert "cut by smidr" in cut(text)
    assert cut("short") == "short"
