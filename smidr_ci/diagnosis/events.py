"""The failed tasks that `events.jsonl` names exactly: recipe, version, file and log.

Recipes of the same build can write to that file, so every value is taken with suspicion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import open_untrusted

__all__ = ["FailedTask", "failed_tasks"]

_MAX_LINE: Final = 1 << 20
_MAX_TASKS: Final = 400
_WANTED: Final = b'"task-failed"'


@dataclass(frozen=True, slots=True)
class FailedTask:
    """One `task-failed` event; empty strings where the event does not say."""

    recipe: str
    version: str
    task: str
    file: str
    log: str
    is_silent: bool
    """A setscene task whose failure BitBake does not count, as the real task runs instead."""


def failed_tasks(path: Path) -> Iterator[FailedTask]:
    """The failed tasks in the order of the file; damaged lines are left out. Raises `OSError`."""
    found = 0
    with open_untrusted(path) as raw:
        rest = b""
        while found < _MAX_TASKS and (data := raw.read(_MAX_LINE)):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()[-_MAX_LINE:]
            for line in lines:
                if _WANTED in line and (task := _parse(line)):
                    found += 1
                    yield task


def _parse(line: bytes) -> FailedTask | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("event") != "task-failed":
        return None
    task = _text(record, "task", 80)
    if not task.startswith("do_"):
        return None
    return FailedTask(
        recipe=_text(record, "pn", 200),
        version=_text(record, "pv", 200),
        task=task,
        file=_text(record, "file", 1000),
        log=_text(record, "log", 1000),
        is_silent=record.get("silent") is True,
    )


def _text(record: dict[str, Any], key: str, limit: int) -> str:
    value = record.get(key)
    return value[:limit] if isinstance(value, str) and value.isprintable() else ""
