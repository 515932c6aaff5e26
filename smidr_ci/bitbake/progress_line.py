"""A snapshot of progress as one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smidr_ci.text import printable

if TYPE_CHECKING:
    from smidr_ci.bitbake.progress import Progress

__all__ = ["render_line"]

_SHOWN_TASKS: Final = 3


def render_line(snapshot: Progress, elapsed_s: float) -> str:
    """One line for people: phase, stage, counts, sstate reuse, running tasks, elapsed time."""
    parts = [f"[{_clock(elapsed_s)}]", _where(snapshot)]
    if snapshot.tasks_failed or snapshot.failures:
        parts.append(f"{max(snapshot.tasks_failed, len(snapshot.failures))} failed")
    if snapshot.sstate is not None:
        reused = snapshot.sstate.local + snapshot.sstate.mirrors
        parts.append(f"sstate {reused}/{snapshot.sstate.wanted}")
    if snapshot.running and snapshot.stage in {"running", "stopping"}:
        parts.append(_running(snapshot))
    return printable("  ".join(part for part in parts if part))


def _clock(seconds: float) -> str:
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _where(snapshot: Progress) -> str:
    name = "fetch: " if snapshot.phase == "fetch" else ""
    if snapshot.stage == "parsing":
        return f"{name}parsing {snapshot.recipes_done}/{snapshot.recipes} recipes"
    if snapshot.stage in {"running", "finished"}:
        return f"{name}tasks {snapshot.tasks_completed}/{snapshot.tasks_total}"
    if snapshot.stage == "starting":
        return f"{name}starting BitBake"
    if snapshot.stage == "preparing":
        return f"{name}preparing tasks"
    return f"{name}{snapshot.stage}"


def _running(snapshot: Progress) -> str:
    tasks = sorted(snapshot.running.values(), key=lambda task: task.started)
    shown = ", ".join(task.label for task in tasks[:_SHOWN_TASKS])
    more = len(tasks) - _SHOWN_TASKS
    return f"{shown} +{more}" if more > 0 else shown
