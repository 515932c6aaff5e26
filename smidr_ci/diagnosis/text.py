"""A raw log line made readable: no terminal codes, CI prefixes or progress-bar residue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_LINE", "LogText", "clean", "strip_block_mark"]

MAX_LINE: Final = 6000
"""Longer lines keep their head and tail: an output at the end of a command stays visible."""

_ANSI: Final = re.compile(
    r"\x1b\[[0-9;:?<=>]{0,40}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)?|\x1b[@-_]?"
)
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_KEYWORD: Final = r"(?:ERROR|WARNING|NOTE|DEBUG|FATAL|Summary|Log data|\| )"
_MAX_INDENT: Final = 8
_PREFIX: Final = re.compile(
    r"(?:section_(?:start|end):\d{1,12}:[\w.-]{1,80}(?:\[[^\]]{0,80}\])?\s?"
    # GitHub, GitLab (with stream mark), Jenkins pipelines, kas, PetaLinux
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,:]\d{1,9})?(?:Z|\s?[+-]\d\d:?\d\d)?\]?"
    r"(?:\s\d\d[OE](?:\+|\s|$)|\s{1,2}-\s(?:[A-Z]{4,8}|\d{1,7})\s{0,8}-(?=\s))?\s?"
    r"|\[\d{1,2}:\d\d:\d\d(?:\.\d{1,6})?\]\s{0,3}"
    r"|\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?:\s{1,2}|\s\|\s)(?=\S)"
    r"|\[(?:INFO|ERROR|WARN|WARNING|DEBUG|NOTE|TRACE)\s?\]\s{0,3}:?\s?"
    r"|(?:INFO|TRACE):\s(?=" + _KEYWORD + r")"
    r"|\[[\w][\w .:/@#-]{0,60}\]\s(?=" + _KEYWORD + r")"
    r"|[A-Z][a-z]{2}\s[ \d]\d\s\d\d:\d\d:\d\d\s[\w.-]{1,64}\s[\w./-]{1,64}(?:\[\d{1,8}\])?:\s"
    r"|#\d{1,4}\s\d{1,6}\.\d{1,4}\s|Step #\d{1,4}(?: - \"[^\"]{0,80}\")?: "
    r"|[\w.-]{1,60}\s{0,20}\|\s(?=" + _KEYWORD + r")"
    r"|(?:>\s?){1,6}|\s{0,4}[\u2502\u2503]\s?"
    r"|(?:#|//|--|\*)\s{1,4}(?=(?:ERROR|WARNING|NOTE|DEBUG): |\| )"
    r"|\s{1,12}(?=(?:ERROR|WARNING|FATAL): )"
    r"|(?:[\"'`(*-]\s?|\*?\s?(?i:fixes|fix|error is|e\.g\.):?\s){1,2}(?=ERROR: )"
    r"|\s{0,8}\|\s{0,2}(?=\||ERROR: [\w.+-]+-r\d[\w.]* do_\w+: |ERROR: Task |ERROR: Logfile of "
    r"|WARNING: \S+-r\d\S* do_)"
    r"|\*\*\s(?=" + _KEYWORD + r"))"
)
_RESIDUE: Final = re.compile(
    r"(?:[#\s]{0,400}\|\s{0,3}(?:ETA|Time):\s{1,3}[-\d:]{1,12}\s*|#{3,}[#\s]*"
    r"|(?<=['\")])\d?\d?:?\d\d:\d\d)$"
)
_PROGRESS_HEAD: Final = re.compile(
    r"(?:(?:Loading cache|Parsing recipes|Initialising tasks)\.{3}(?:done\.)?"
    r"|Loading cache|Parsing recipes|Initialising tasks"
    r"|Checking sstate mirror object availability|"
    r"Currently +\d+ running tasks[^%]{0,80}|Setscene tasks: \d+ of \d+|Running tasks).{0,400}?"
    r"(?=(?:ERROR|WARNING|FATAL): )"
)


@dataclass(frozen=True, slots=True)
class LogText:
    """`shown`: the line without foreign prefixes; `body`: also without the `| ` of a task log."""

    shown: str
    body: str
    in_block: bool


def clean(raw: bytes) -> LogText:
    """Decode and strip one line of a log; never raises."""
    if len(raw) > MAX_LINE:
        raw = raw[: MAX_LINE // 2] + b" ... " + raw[-MAX_LINE // 2 :]
    text = raw.decode("utf-8", "replace")
    if not text.isprintable():
        text = _CONTROL.sub("", _ANSI.sub("", text.replace("\xa0", " ")).replace("\r", ""))
    for _ in range(5):
        match = _PREFIX.match(text)
        if not match or match.end() == 0:
            break
        text = text[match.end() :]
    text = text.rstrip(" \t\n\u2502\u2503")
    if text.endswith((":", "-", "#", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")):
        text = _RESIDUE.sub("", text).rstrip()
    if ("%" in text[:60] or "..." in text[:60]) and (head := _PROGRESS_HEAD.match(text)):
        text = text[head.end() :]
    body, in_block = strip_block_mark(text)
    return LogText(text, body, in_block)


def strip_block_mark(text: str) -> tuple[str, bool]:
    """Take off the `| ` that BitBake puts before each line of a task's log."""
    bare = text.lstrip(" ")
    if bare.startswith("|") and len(text) - len(bare) <= _MAX_INDENT:
        return bare[1:].removeprefix(" "), True
    return text, False
