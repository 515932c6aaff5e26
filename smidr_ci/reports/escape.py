"""A stranger's text made harmless for the place it is shown in; what it says stays readable."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.text import printable

__all__ = ["cell", "clip", "fenced", "inline", "plain_line", "workflow_data", "workflow_property"]

# All that Markdown, HTML, GitHub or GitLab could take for markup, as HTML entities: mentions,
# issue numbers, emoji, math, autolinks and table bars included.
_MARKUP: Final = re.compile(r"[&<>`*_\[\]#|~$@:\\!]")
_BACKTICKS: Final = re.compile(r"`+")


def clip(text: str, limit: int) -> str:
    """At most `limit` characters; a cut is marked."""
    return text if len(text) <= limit else f"{text[: max(0, limit - 4)]} ..."


def inline(text: str, limit: int = 400) -> str:
    """Text inside a Markdown paragraph: every character that could be markup is an entity."""
    shown = clip(" ".join(printable(text).split()), limit)
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", shown)


def cell(text: str, limit: int = 300) -> str:
    """Text inside a Markdown table's cell."""
    return inline(text, limit) or "&nbsp;"


def fenced(lines: list[str], limit: int = 12_000) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    body = clip("\n".join(printable(line) for line in lines), limit)
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"


def plain_line(text: str, limit: int = 2000) -> str:
    """One line for a terminal or a CI log that no runner takes for a command.

    GitHub's runner reads `##[...]` anywhere in a line; `::` only at a line's start, so callers put
    something in front.
    """
    return clip(printable(text).replace("##[", "## ["), limit)


def workflow_data(text: str) -> str:
    """The message of a GitHub workflow command (actions/toolkit: escapeData)."""
    clean = printable(text, keep_newlines=True)
    return clean.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def workflow_property(text: str) -> str:
    """A property of a GitHub workflow command (actions/toolkit: escapeProperty)."""
    return workflow_data(text).replace(":", "%3A").replace(",", "%2C")
