"""BitBake's events as plain records: the same words for every release from dunfell on.

Told apart by class name, read by attribute, so that nothing of BitBake's is imported here.
Facts: bb/event.py, bb/build.py, bb/runqueue.py, bb/command.py; OE-Core's sstate.bbclass.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Callable, Dict

__all__ = ["EXTRA_EVENTS", "Translator"]

Record = Dict[str, Any]

EXTRA_EVENTS = ("bb.event.BuildStarted", "bb.event.BuildCompleted", "bb.event.DiskFull")
"""What knotty does not ask the server for. More would be sent for each of thousands of tasks."""

_MAX_TEXT = 64 * 1024
_CUT_MARK = "\n[... cut by smidr ...]\n"
_PARSE_EVERY_S = 0.2
_WARNING = logging.WARNING - 1  # bb.msg: WARNONCE
_ERROR = logging.ERROR - 1  # bb.msg: ERRORONCE
_SSTATE = re.compile(
    r"^Sstate summary: Wanted (\d+) (?:Local|Found) (\d+)(?: Mirrors (\d+))? "
    r"Missed (\d+) Current (\d+)"
)
_SSTATE_NAMES = ("wanted", "local", "mirrors", "missed", "current")
_TASKS = re.compile(r"^(?:NOTE: )?Tasks Summary: Attempted (\d+) tasks of which (\d+) ")
_COUNTS = (
    "total",
    "completed",
    "active",
    "failed",
    "skipped",
    "setscene_total",
    "setscene_active",
    "setscene_covered",
    "setscene_notcovered",
)


def cut(text: str) -> str:
    """The text, or its beginning and end when it is longer than 64 Ki characters."""
    if len(text) <= _MAX_TEXT:
        return text
    half = (_MAX_TEXT - len(_CUT_MARK)) // 2
    return text[:half] + _CUT_MARK + text[-half:]


class Translator:
    """Keeps which task runs under which pid, to say of a log record whose it is."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._tasks: dict[int, Record] = {}
        self._parse_shown = 0.0

    def translate(self, event: object) -> Record | None:
        """The record of one event; None for events that nobody needs."""
        if isinstance(event, logging.LogRecord):
            return self._log(event)
        fields_of = _FIELDS.get(type(event).__name__)
        fields = fields_of(event) if fields_of else None
        if fields is None or self._is_too_soon(fields):
            return None
        self._follow(fields)
        return {"t": round(self._now(), 3), **fields}

    def _is_too_soon(self, fields: Record) -> bool:
        if fields["event"] != "parse-progress":
            return False
        now = self._now()
        if 0 <= now - self._parse_shown < _PARSE_EVERY_S:
            return True
        self._parse_shown = now
        return False

    def _follow(self, fields: Record) -> None:
        if fields["event"] == "task-started":
            self._tasks[fields["pid"]] = fields
        elif fields["event"] in {"task-succeeded", "task-failed"}:
            self._tasks.pop(fields["pid"], None)

    def _log(self, record: logging.LogRecord) -> Record | None:
        text = _message(record)
        stamp = {"t": round(self._now(), 3)}
        if record.levelno < _WARNING:
            summary = _summary(text)
            return {**stamp, **summary} if summary else None
        if record.levelno >= logging.CRITICAL:
            level = "critical"
        else:
            level = "error" if record.levelno >= _ERROR else "warning"
        pid = getattr(record, "taskpid", 0)
        found = {**stamp, "event": "log", "level": level, "message": cut(text), "pid": pid}
        if getattr(record, "fn", None):
            found["file"] = str(record.fn)  # type: ignore[attr-defined]  # BitBake's own field
        for name in ("pn", "task", "mc"):
            if name in self._tasks.get(pid, {}):
                found[name] = self._tasks[pid][name]
        return found


def _parse_completed(event: object) -> Record:
    names = ("cached", "parsed", "skipped", "masked", "virtuals", "errors", "total")
    return {"event": "parse-completed", **{name: _number(event, name) for name in names}}


def _process_started(event: object) -> Record:
    total = _number(event, "total")
    return {"event": "process-started", "name": _text(event, "processname"), "total": total}


def _no_provider(event: object) -> Record:
    return {
        "event": "no-provider",
        "item": _text(event, "_item"),
        "runtime": bool(getattr(event, "_runtime", False)),
        "message": cut(str(event)),
    }


def _multiple_providers(event: object) -> Record:
    item = _text(event, "_item")
    return {"event": "multiple-providers", "item": item, "message": cut(str(event))}


def _disk_full(event: object) -> Record:
    return {
        "event": "disk-full",
        "device": _text(event, "_dev"),
        "what": _text(event, "_type"),
        "free": _number(event, "_free"),
        "mount_point": _text(event, "_mountpoint"),
    }


def _command_failed(event: object) -> Record:
    return {
        "event": "command-failed",
        "message": _text(event, "error"),
        "exit_code": _number(event, "exitcode", 1),
    }


def _summary(text: str) -> Record | None:
    """The figures of the two summary lines that BitBake and OE-Core log as plain notes."""
    found = _SSTATE.match(text)
    if found:
        counts = (int(value or 0) for value in found.groups())
        return {"event": "sstate-summary", **dict(zip(_SSTATE_NAMES, counts))}
    found = _TASKS.match(text)
    if found:
        attempted, unneeded = int(found[1]), int(found[2])
        return {"event": "tasks-summary", "attempted": attempted, "unneeded": unneeded}
    return None


def _queued(name: str, event: object) -> Record:
    """A run queue event; the file is without `mc:NAME:` but keeps `virtual:native:`."""
    mc, file = _split_mc(_text(event, "taskfile"))
    task = _text(event, "taskname")
    stats = getattr(event, "stats", None)
    counts = {key: value for key in _COUNTS if type(value := getattr(stats, key, None)) is int}
    record = {
        "event": name,
        "task": task,
        "file": file,
        "mc": mc,
        "setscene": type(event).__name__.startswith("scene"),
        "stats": counts,
    }
    if name == "queue-failed":
        record["exit_code"] = _number(event, "exitcode", 1)
    elif getattr(event, "noexec", False):
        record["noexec"] = True
    return record


def _task(name: str, event: object) -> Record:
    """An event from the worker's side: recipe, version, log."""
    mc = _text(event, "_mc")
    inner, file = _split_mc(_text(event, "_fn"))
    return {
        "event": name,
        "pn": _text(event, "pn"),
        "pv": _text(event, "pv"),
        "task": _text(event, "_task"),
        "file": file,
        "mc": inner or ("" if mc == "default" else mc),
        "pid": _number(event, "pid"),
        "log": _text(event, "logfile"),
    }


def _split_mc(file: str) -> tuple[str, str]:
    if file.startswith("mc:"):
        _, mc, rest = [*file.split(":", 2), "", ""][:3]
        return mc, rest
    return "", file


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a recipe's own format string
        text = str(record.msg)
    formatted = getattr(record, "bb_exc_formatted", None)
    if formatted and all(isinstance(line, str) for line in formatted):
        text = text + "\n" + "".join(formatted)
    return text


def _text(event: object, name: str) -> str:
    value = getattr(event, name, None)
    return "" if value is None else cut(str(value))


def _number(event: object, name: str, default: int = 0) -> int:
    value = getattr(event, name, None)
    return int(value) if isinstance(value, (int, float)) else default


_FIELDS: dict[str, Callable[[object], Record]] = {
    # When the cache has everything, BitBake parses nothing and tells of no parsing either.
    "CacheLoadCompleted": lambda event: {
        "event": "cache-loaded",
        "entries": _number(event, "num_entries"),
    },
    "ParseStarted": lambda event: {"event": "parse-started", "total": _number(event, "total")},
    "ParseProgress": lambda event: {
        "event": "parse-progress",
        "current": _number(event, "current"),
        "total": _number(event, "total"),
    },
    "ParseCompleted": _parse_completed,
    "ProcessStarted": _process_started,
    "ProcessFinished": lambda event: {
        "event": "process-finished",
        "name": _text(event, "processname"),
    },
    "BuildStarted": lambda _: {"event": "build-started"},
    "BuildCompleted": lambda event: {
        "event": "build-completed",
        "failures": _number(event, "_failures"),
    },
    "runQueueTaskStarted": lambda event: _queued("queue-started", event),
    "sceneQueueTaskStarted": lambda event: _queued("queue-started", event),
    "runQueueTaskFailed": lambda event: _queued("queue-failed", event),
    "sceneQueueTaskFailed": lambda event: _queued("queue-failed", event),
    "TaskStarted": lambda event: _task("task-started", event),
    "TaskSucceeded": lambda event: _task("task-succeeded", event),
    "TaskFailed": lambda event: _task("task-failed", event),
    "TaskFailedSilent": lambda event: {**_task("task-failed", event), "silent": True},
    "NoProvider": _no_provider,
    "MultipleProviders": _multiple_providers,
    "DiskFull": _disk_full,
    "CommandFailed": _command_failed,
    "CommandCompleted": lambda _: {"event": "command-completed"},
}
