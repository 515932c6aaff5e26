"""From a position in a library's header to the line of the recipe's source that led there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from smidr_ci.diagnosis.reader import Hit

__all__ = ["source_position"]

_FOREIGN: Final = re.compile(r"/recipe-sysroot(?:-native)?/|^/usr/(?:include|lib)/|/sysroots/")
_REQUIRED: Final = re.compile(
    r"^(?P<file>[^\s:]{1,600}):(?P<line>\d{1,7})(?::(?P<column>\d{1,5}))?:\s{1,8}required from here"
)
_INCLUDED: Final = re.compile(
    r"^\s{0,40}(?:In file included )?from (?P<file>[^\s:]{1,600}):(?P<line>\d{1,7})"
    r"(?::\d{1,5})?[:,]$"
)
_SYNTAX: Final = re.compile(r"^(?:Syntax|Indentation|Tab)Error: ")
_METADATA: Final = re.compile(
    r'^\s{0,8}File "(?P<file>/[^"\s]{1,500}\.(?:bb|bbappend|bbclass|inc|conf))"'
    r", line (?P<line>\d{1,7})"
)
_STACK: Final = re.compile(
    r"^File: '(?P<file>/[^']{1,500}\.(?:bb|bbappend|inc))', lineno: (?P<line>\d{1,7}), function: "
)
_STACK_START: Final = "The stack trace of python calls"
_STACK_LINES: Final = 100
_FRAME: Final = re.compile(
    r'^\s{2,8}File "(?P<file>/[^"\s]{1,300}/work/[^/"\s]{1,80}/[^/"\s]{1,120}/[^"\s]{1,400})"'
    r", line (?P<line>\d{1,7})"
)
_RAISED: Final = re.compile(r"^(?:[a-zA-Z_]\w{0,40}\.){0,5}[A-Z]\w{0,60}(?:Error|Exception): ")
_LINES: Final = 14


def source_position(hit: Hit, groups: Mapping[str, str]) -> dict[str, str]:
    """The groups with file and line of the source, where those found lie in a sysroot."""
    known = dict(groups)
    if "file" not in known and _SYNTAX.match(hit.text.body):
        return known | _metadata_position(hit)
    if "file" not in known and hit.text.body.startswith("Exception: "):
        return known | _recipe_position(hit)
    if "file" not in known and _RAISED.match(hit.text.body):
        return known | _script_position(hit)
    if not _FOREIGN.search(known.get("file", "")):
        return known
    included: re.Match[str] | None = None
    for near in reversed(hit.before(_LINES)):
        text = near.text.body
        if (match := _REQUIRED.match(text)) and not _FOREIGN.search(match["file"]):
            return _placed(known, match)
        if (match := _INCLUDED.match(text)) and not _FOREIGN.search(match["file"]):
            included = included or match
    return _placed(known, included) if included else known


def _metadata_position(hit: Hit) -> dict[str, str]:
    for near in reversed(hit.before(6)):
        if match := _METADATA.match(near.text.body):
            return match.groupdict()
    return {}


def _recipe_position(hit: Hit) -> dict[str, str]:
    """The deepest line of a recipe in BitBake's own kind of traceback."""
    for near in reversed(hit.before(_STACK_LINES)):
        if near.text.body.startswith(_STACK_START):
            break
        if match := _STACK.match(near.text.body):
            return match.groupdict()
    return {}


def _script_position(hit: Hit) -> dict[str, str]:
    """The deepest line of the recipe's source in a traceback of a program it runs."""
    for near in reversed(hit.before(_LINES)):
        if near.text.body.startswith("Traceback "):
            break
        if (match := _FRAME.match(near.text.body)) and not _FOREIGN.search(match["file"]):
            return match.groupdict()
    return {}


def _placed(known: dict[str, str], match: re.Match[str]) -> dict[str, str]:
    known.pop("column", None)
    return known | {name: value for name, value in match.groupdict().items() if value}
