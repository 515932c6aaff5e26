"""Where BitBake is: events folded into one immutable value, and that value as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from smidr_ci.bitbake.events import Event
from smidr_ci.bitbake.progress_line import render_line
from smidr_ci.bitbake.tasks import RunningTask, SstateSummary, TaskFailure

__all__ = ["Progress", "RunningTask", "SstateSummary", "TaskFailure", "render_line"]

_MAX_FAILURES: Final = 1000
_MAX_RUNNING: Final = 4096
_MAX_ERRORS: Final = 100
_MAX_TEXT: Final = 4096
_MAX_COUNT: Final = 2**53
_KEPT: Final = frozenset({"errors", "warnings", "bitbake"})
_FROM_WORKER: Final = {"pn": "pn", "pv": "pv", "logfile": "log"}


@dataclass(frozen=True)
class Progress:
    """A snapshot. Counts of tasks and recipes are those of the running phase, or of the last."""

    phase: str = ""
    """`fetch`, `build`, or empty before the first."""
    stage: str = "starting"
    """`starting`, `parsing`, `preparing`, `running`, `finished`, `stopping` or `ended`."""
    bitbake: str = ""
    """Version."""
    recipes: int = 0
    recipes_done: int = 0
    recipes_cached: int = 0
    """When all came from the cache: its entries, which count a recipe once per variant."""
    recipes_parsed: int = 0
    recipe_errors: int = 0
    tasks_total: int = 0
    tasks_completed: int = 0
    tasks_active: int = 0
    tasks_failed: int = 0
    tasks_executed: int = 0
    """Tasks that really ran, setscene tasks not counted."""
    tasks_from_sstate: int = 0
    """Setscene tasks that restored their output."""
    setscene_total: int = 0
    setscene_covered: int = 0
    setscene_failed: int = 0
    running: Mapping[int, RunningTask] = field(default_factory=lambda: MappingProxyType({}))
    """By pid inside the container, in the order of their start."""
    sstate: SstateSummary | None = None
    failures: tuple[TaskFailure, ...] = ()
    errors: tuple[str, ...] = ()
    """First hundred texts of missing providers and of errors outside of tasks."""
    warnings: int = 0
    """Of all phases."""
    exit_code: int | None = None
    """Of the last phase that ended."""

    def fold(self, events: Iterable[Event]) -> Progress:
        """The snapshot after these events. What makes no sense is passed over."""
        state = self
        for event in events:
            step = _STEPS.get(event.get("event", ""))
            if step is not None:
                state = replace(state, **step(state, event))
        return state


_Changes = dict[str, Any]


def _count(event: Mapping[str, Any], name: str) -> int:
    value = event.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, 0), _MAX_COUNT) if is_count and value is not None else 0


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _phase(_: Progress, event: Event) -> _Changes:
    # A phase starts its own counting; failures of an earlier one can't be, it would be the last.
    fresh = Progress()
    kept = {"phase": _text(event, "phase"), "stage": "starting"}
    counted = [name for name in Progress.__dataclass_fields__ if name not in _KEPT]
    return {**{name: getattr(fresh, name) for name in counted}, **kept}


def _cache_loaded(_: Progress, event: Event) -> _Changes:
    entries = _count(event, "entries")
    return {"recipes": entries, "recipes_done": entries, "recipes_cached": entries}


def _parsing(_: Progress, event: Event) -> _Changes:
    total = _count(event, "total")
    return {"stage": "parsing", "recipes": total, "recipes_done": 0, "recipes_cached": 0}


def _parse_progress(state: Progress, event: Event) -> _Changes:
    total = _count(event, "total") or state.recipes
    return {"stage": "parsing", "recipes": total, "recipes_done": _count(event, "current")}


def _parsed(_: Progress, event: Event) -> _Changes:
    total = _count(event, "total")
    return {
        "stage": "preparing",
        "recipes": total,
        "recipes_done": total,
        "recipes_cached": _count(event, "cached"),
        "recipes_parsed": _count(event, "parsed"),
        "recipe_errors": _count(event, "errors"),
    }


def _preparing(_: Progress, __: Event) -> _Changes:
    return {"stage": "preparing"}


def _stats(state: Progress, event: Event) -> _Changes:
    stats = event.get("stats")
    stats = stats if isinstance(stats, dict) else {}
    if event.get("setscene") is True and "setscene_total" not in stats:
        # dunfell counts its setscene tasks apart, in the same words
        return {
            "setscene_total": _count(stats, "total"),
            "setscene_covered": _count(stats, "completed"),
        }
    changes = {
        "tasks_total": _count(stats, "total"),
        "tasks_completed": _count(stats, "completed"),
        "tasks_active": _count(stats, "active"),
        "tasks_failed": _count(stats, "failed"),
    }
    if "setscene_total" in stats:
        changes["setscene_total"] = _count(stats, "setscene_total")
        changes["setscene_covered"] = _count(stats, "setscene_covered")
    if state.tasks_total and changes["tasks_completed"] < state.tasks_completed:
        del changes["tasks_completed"]  # a task that ended since counts already
    return changes


def _queue_started(state: Progress, event: Event) -> _Changes:
    return {"stage": "running", **_stats(state, event)}


def _queue_failed(state: Progress, event: Event) -> _Changes:
    changes = _stats(state, event)
    if event.get("setscene") is True:
        return {**changes, "setscene_failed": state.setscene_failed + 1}
    known = partial(replace, exit_code=_count(event, "exit_code"))
    return {**changes, "failures": _with_failure(state, event, known)}


def _task_started(state: Progress, event: Event) -> _Changes:
    if len(state.running) >= _MAX_RUNNING:
        return {}
    started = event.get("t")
    task = RunningTask(
        pn=_text(event, "pn"),
        task=_text(event, "task"),
        started=float(started) if isinstance(started, int | float) else 0.0,
        mc=_text(event, "mc"),
    )
    return {"stage": "running", "running": {**state.running, _count(event, "pid"): task}}


def _without(state: Progress, event: Event) -> Mapping[int, RunningTask]:
    pid = _count(event, "pid")
    return {key: task for key, task in state.running.items() if key != pid}


def _task_succeeded(state: Progress, event: Event) -> _Changes:
    running = _without(state, event)
    if _text(event, "task").endswith("_setscene"):
        return {"running": running, "tasks_from_sstate": state.tasks_from_sstate + 1}
    return {
        "running": running,
        "tasks_executed": state.tasks_executed + 1,
        "tasks_completed": min(state.tasks_completed + 1, state.tasks_total),
    }


def _task_failed(state: Progress, event: Event) -> _Changes:
    running = _without(state, event)
    if event.get("silent") is True:
        return {"running": running}
    known = {name: _text(event, key) for name, key in _FROM_WORKER.items()}
    return {
        "running": running,
        "tasks_executed": state.tasks_executed + 1,
        "failures": _with_failure(state, event, partial(replace, **known)),
    }


def _with_failure(
    state: Progress, event: Event, known: Callable[[TaskFailure], TaskFailure]
) -> tuple[TaskFailure, ...]:
    """The worker tells of a failure first, the run queue again: one entry for both."""
    key = (_text(event, "mc"), _text(event, "file"), _text(event, "task"))
    for index, failure in enumerate(state.failures):
        if (failure.mc, failure.file, failure.task) == key:
            return (*state.failures[:index], known(failure), *state.failures[index + 1 :])
    if len(state.failures) >= _MAX_FAILURES:
        return state.failures
    return (*state.failures, known(TaskFailure(mc=key[0], file=key[1], task=key[2])))


def _sstate(_: Progress, event: Event) -> _Changes:
    names = ("wanted", "local", "mirrors", "missed", "current")
    return {"sstate": SstateSummary(*(_count(event, name) for name in names))}


def _tasks_summary(_: Progress, event: Event) -> _Changes:
    attempted = _count(event, "attempted")
    return {
        "stage": "finished",
        "tasks_total": attempted,
        "tasks_completed": attempted,
        "tasks_active": 0,
    }


def _error(state: Progress, event: Event) -> _Changes:
    if event.get("level") == "warning":
        return {"warnings": state.warnings + 1}
    if event.get("task") or len(state.errors) >= _MAX_ERRORS:
        return {}
    return {"errors": (*state.errors, _text(event, "message"))}


def _stopping(_: Progress, __: Event) -> _Changes:
    return {"stage": "stopping"}


def _ended(_: Progress, event: Event) -> _Changes:
    return {"stage": "ended", "running": {}, "exit_code": _count(event, "exit_code")}


_STEPS: Final[Mapping[str, Callable[[Progress, Event], _Changes]]] = {
    "phase": _phase,
    "ui": lambda _, event: {"bitbake": _text(event, "bitbake")},
    "cache-loaded": _cache_loaded,
    "parse-started": _parsing,
    "parse-progress": _parse_progress,
    "parse-completed": _parsed,
    "process-started": _preparing,
    "queue-started": _queue_started,
    "queue-failed": _queue_failed,
    "task-started": _task_started,
    "task-succeeded": _task_succeeded,
    "task-failed": _task_failed,
    "sstate-summary": _sstate,
    "tasks-summary": _tasks_summary,
    "no-provider": _error,
    "command-failed": _error,
    "log": _error,
    "error": _error,
    "stop": _stopping,
    "phase-end": _ended,
}
