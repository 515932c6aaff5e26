"""BitBake's own lines around a failure: who failed, where its log is, and the figures of the run.

Forms of all releases from 2011 on; each function takes a cleaned line and says what it is, or None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from smidr_ci.diagnosis.names import (
    RecipeName,
    from_label,
    from_recipe_file,
    from_work_path,
    strip_variants,
)

__all__ = ["Head", "TaskRef", "head_of", "is_frame_message", "running_function", "task_reference"]

_HEAD: Final = re.compile(
    r"^(?P<level>ERROR|FATAL|WARNING|NOTE|DEBUG|CRITICAL)\s?:\s{1,2}(?P<rest>.*)$", re.DOTALL
)
_LABEL: Final = re.compile(
    r"^(?P<label>(?!(?:Task|task|Function|function|in|for) )"
    r"[^\s'\"()\[\]]{1,300}) (?P<task>do_\w{1,60}): ?(?P<message>.*)$",
    re.DOTALL,
)
_TASK_LABEL: Final = re.compile(r"^(?P<task>do_\w{1,60}): (?P<message>.*)$", re.DOTALL)
_LABEL_ONLY: Final = re.compile(
    r"^(?P<label>[\w.+~-]{1,200}-r\d[\w.]{0,12}): (?P<message>.*)$", re.DOTALL
)
_BARE_LABEL: Final = re.compile(
    r"^(?P<label>[a-z][\w.+~-]{1,200}-r\d[\w.]{0,12}) (?P<task>do_\w{1,60}): (?P<message>.*)$",
    re.DOTALL,
)
_PATH_LABEL: Final = re.compile(
    r"^(?P<path>(?:virtual:[\w:-]{1,60}:"
    r"|mc:[\w.-]{1,60}:)?/[^\s:]{1,500}\.bb(?:append)?): (?P<message>.*)$",
    re.DOTALL,
)

_LOGFILE: Final = re.compile(
    r"(?:Logfile of failure stored in: |log file is located at |^\s{2,6}log: )"
    r"(?P<path>\S{0,600}/temp/log\.(?P<task>do_[a-z_0-9]{1,60}?)(?:\.\d{1,10}|(?=\)|\s|$)))"
)
_TASK: Final = re.compile(
    r"Task (?:\d{1,6} )?\((?P<id>[^()]{1,600}?)(?:, "
    r"|:)(?P<task>do_\w{1,60})\) failed(?: with exit code '(?P<code>-?\d{1,4})')?"
)
_RECIPE_TASK: Final = re.compile(
    r"^(?:recipe|package) (?P<label>\S{1,300}): task (?P<task>do_\w{1,60}): Failed"
)
_RUN_SCRIPT: Final = re.compile(
    r"(?P<path>\S{0,600}/temp/(?:run|log)\.(?P<task>do_[a-z_0-9]{1,60})(?:\.\d{1,10}|(?=[\s:'\")]"
    r"|$)))"
)
_FUNCTION: Final = re.compile(
    r"Function failed: (?P<task>do_[a-z_0-9]{1,60})(?:\s|$)"
    r"|exit \d{1,3} from '(?P<task2>do_\w{1,60})'"
)

_RUNNING: Final = re.compile(
    r"(?:Executing (?:shell|python) function|Python function|Shell function) "
    r"(?P<task>do_(?!qa_)[a-z_0-9]{1,60})"
)
_FRAME_MESSAGE: Final = re.compile(
    r"^(?:ExecutionError\(|Execution of '\S{1,600}' failed|Function failed: (?:do_|base_do_"
    r"|\w{1,80}$|\w{1,80} \(log)|"
    r"Function '[\w-]{1,80}' failed|Error executing a python function|Build of do_\w+ failed|"
    r"Task (?:\d+ )?\(|Logfile of failure|Build of \S{1,300} failed|'?do_\w+'? failed$"
    r"|BBHandledException|"
    r"Failed to build \S{0,300}$|Command execution failed|Some tasks failed)"
)


@dataclass(frozen=True, slots=True)
class Head:
    """A message of BitBake: `ERROR: PN-PV-PR do_task: message`; most parts may be missing."""

    level: str
    message: str
    label: str | None = None
    task: str | None = None
    name: RecipeName | None = None
    recipe_file: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A line that names a failed task exactly, by its log's or its recipe's path."""

    name: RecipeName | None
    task: str
    recipe_file: str | None = None
    task_log: str | None = None
    ends: bool = False
    """The last line BitBake prints about this failure."""
    hint_only: bool = False
    """Names the task in passing, inside its log."""


def head_of(text: str) -> Head | None:
    """The head of a message that starts on this line."""
    match = _HEAD.match(text)
    if not match:
        return _bare_head(text)
    level = "ERROR" if match["level"] in {"FATAL", "CRITICAL"} else match["level"]
    return (
        _labelled(level, match["rest"])
        or _named(level, match["rest"])
        or Head(level, match["rest"])
    )


def _labelled(level: str, rest: str) -> Head | None:
    if label := _LABEL.match(rest):
        name = label["label"]
        if "/" in name:
            path = strip_variants(name)[2]
            return Head(level, label["message"], name, label["task"], from_recipe_file(name), path)
        return Head(
            level, label["message"], name.rsplit(":", 1)[-1], label["task"], from_label(name)
        )
    if task_label := _TASK_LABEL.match(rest):
        return Head(level, task_label["message"], None, task_label["task"])
    return None


def _named(level: str, rest: str) -> Head | None:
    if named := _LABEL_ONLY.match(rest):
        return Head(level, named["message"], named["label"], None, from_label(named["label"]))
    if path_label := _PATH_LABEL.match(rest):
        path = strip_variants(path_label["path"])[2]
        return Head(
            level, path_label["message"], None, None, from_recipe_file(path_label["path"]), path
        )
    return None


def _bare_head(text: str) -> Head | None:
    # bitbake -v puts the task before each line that it prints, without a level.
    if "-r" not in text or not (match := _BARE_LABEL.match(text)):
        return None
    return Head(
        "OUTPUT", match["message"], match["label"], match["task"], from_label(match["label"])
    )


def task_reference(text: str) -> TaskRef | None:
    """Which task a line names as failed, if it does."""
    if "failed" in text and (match := _TASK.search(text)):
        path = strip_variants(match["id"])[2]
        return TaskRef(from_recipe_file(match["id"]), match["task"], path, ends=True)
    if "/temp/log." in text and (match := _LOGFILE.search(text)):
        return TaskRef(from_work_path(match["path"]), match["task"], task_log=match["path"])
    if "Failed" in text and (match := _RECIPE_TASK.match(text.removeprefix("NOTE: "))):
        return TaskRef(from_label(match["label"]), match["task"])
    if "/temp/" in text and (match := _RUN_SCRIPT.search(text)):
        return TaskRef(from_work_path(match["path"]), match["task"], hint_only=True)
    if ("Function failed: do_" in text or "' from '" in text) and (match := _FUNCTION.search(text)):
        return TaskRef(None, match["task"] or match["task2"], hint_only=True)
    return None


def running_function(text: str) -> str | None:
    """The task whose function a task's log says it runs: `DEBUG: Executing shell function do_x`."""
    match = _RUNNING.search(text)
    return match["task"] if match else None


def is_frame_message(message: str) -> bool:
    """Whether a message only says that a task failed, not why."""
    return bool(_FRAME_MESSAGE.match(message))
