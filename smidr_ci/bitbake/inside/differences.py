"""What `bb.siggen.compare_sigfiles` says of two signatures, as one reason.

Its lines are the same from dunfell to the newest release but for capitals and an article.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["reason_of", "task_of"]

_MAX_TEXT = 600
_FIRST = ("PV", "PR", "SRCREV", "SRC_URI")
_PATTERNS = (
    ("file", r"(?:The )?checksum for file (?P<name>.+) changed from \S+ to \S+"),
    ("file", r"Dependency on checksum of file (?P<name>.+) was (?P<how>added|removed)"),
    ("variable", r"Variable (?P<name>\S+) value changed from '(?P<old>.*)' to '(?P<new>.*)'"),
    ("variable", r"Variable (?P<name>\S+) value changed:\s*(?P<text>.*)"),
    ("variable", r"Dependency on variable (?P<name>\S+) was (?P<how>added|removed)"),
    ("dependencies", r"List of dependencies for variable (?P<name>\S+) changed from .*"),
    ("dependencies", r"Task dependencies changed from:.*"),
    ("task", r"Dependency on task (?P<name>\S+) was (?P<how>added|removed)\b.*"),
    ("forced", r"Taint \(by forced/invalidated task\) changed .*"),
)
_RULES = tuple((kind, re.compile(text, re.DOTALL | re.IGNORECASE)) for kind, text in _PATTERNS)
_TASK = re.compile(r":(do_\w+)")


def reason_of(lines: list[str], task: str) -> dict[str, Any] | None:
    """The most telling difference; None when only the hashes of other tasks differ."""
    found = [reason for reason in map(_parse, lines) if reason is not None]
    if not found:
        return None
    found.sort(key=lambda reason: _rank(reason, task))
    reason = {name: value[:_MAX_TEXT] for name, value in found[0].items()}
    if reason.get("name") == task:
        reason["kind"] = "code"
    names = {(item["kind"], item.get("name")) for item in found}
    return {**reason, "others": len(names) - 1}


def _parse(line: str) -> dict[str, str] | None:
    for kind, rule in _RULES:
        match = rule.fullmatch(line.strip())
        if match is not None:
            given = {name: value for name, value in match.groupdict().items() if value is not None}
            return {"kind": kind, **given}
    return None


def _rank(reason: dict[str, str], task: str) -> tuple[int, int]:
    """A change says more than an addition, and a file or a variable more than a function."""
    kind, name = reason["kind"], reason.get("name", "")
    order = ("file", "variable", "task", "dependencies", "forced").index(kind)
    if "how" in reason:
        order += 5 if kind == "variable" else 2
    first = _FIRST.index(name) if name in _FIRST else len(_FIRST)
    is_code = name == task or "\n" in reason.get("text", "")
    return order, first + 10 * is_code


def task_of(name: str) -> str:
    """The task in a name of a task: `pn:do_x`, `a_1.bb:do_x:virtual:native`, `mc:one:pn:do_x`."""
    found = _TASK.findall(name)
    return str(found[-1]) if found else ""
