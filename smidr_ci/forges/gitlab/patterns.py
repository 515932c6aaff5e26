"""The globs of `artifacts:paths` and `artifacts:exclude`, as the official runner reads them.

They are doublestar's: `*`, `?`, `[...]` within one name, leading dots too; `**` as a whole part
for any number of directories; `{a,b}` for alternatives; a backslash takes a meaning away.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from smidr_ci.errors import ConfigError

__all__ = ["Pattern"]

_MAX_LENGTH: Final = 4096
_MAX_ALTERNATIVES: Final = 500
_Parts = tuple[re.Pattern[str] | None, ...]


@dataclass(frozen=True)
class Pattern:
    """One glob; a place in it is a set of `(alternative, part)` pairs."""

    text: str
    alternatives: tuple[_Parts, ...]
    """The parts between slashes of each alternative; None is `**`."""

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Read a glob relative to the project directory; raises `ConfigError`."""
        if len(text) > _MAX_LENGTH:
            raise ConfigError(f"a glob has {len(text)} characters: {text[:60]}...", hint=_HINT)
        expanded = _expand(text)
        return cls(text, tuple(_parts(one) for one in dict.fromkeys(expanded)))

    def start(self) -> frozenset[tuple[int, int]]:
        """The place before the first name."""
        return self._closed({(number, 0) for number in range(len(self.alternatives))})

    def step(self, place: frozenset[tuple[int, int]], name: str) -> frozenset[tuple[int, int]]:
        """The place after a directory's or file's name; empty when nothing can match below."""
        reached = set()
        for number, position in place:
            parts = self.alternatives[number]
            if position == len(parts):
                continue
            part = parts[position]
            if part is None:
                reached.add((number, position))
            elif part.match(name):
                reached.add((number, position + 1))
        return self._closed(reached)

    def accepts(self, place: frozenset[tuple[int, int]]) -> bool:
        """Whether the names so far are a match."""
        return any(position == len(self.alternatives[number]) for number, position in place)

    def matches(self, path: str) -> bool:
        """Whether a relative path with `/` matches as a whole."""
        place = self.start()
        for name in path.split("/"):
            place = self.step(place, name)
        return self.accepts(place)

    def _closed(self, place: set[tuple[int, int]]) -> frozenset[tuple[int, int]]:
        """With all that is reached by letting a `**` stand for nothing."""
        waiting = list(place)
        while waiting:
            number, position = waiting.pop()
            parts = self.alternatives[number]
            following = (number, position + 1)
            if position < len(parts) and parts[position] is None and following not in place:
                place.add(following)
                waiting.append(following)
        return frozenset(place)


_HINT: Final = "Write a simpler glob under 'artifacts' in .gitlab-ci.yml."


def _parts(text: str) -> _Parts:
    names = [part for part in _split(text, "/") if part not in {"", "."}]
    return tuple(None if part == "**" else _compiled(part) for part in names)


def _compiled(part: str) -> re.Pattern[str]:
    # Python's own translation of globs can't be made to backtrack for ever.
    return re.compile(fnmatch.translate(_as_fnmatch(part)))


def _as_fnmatch(part: str) -> str:
    """Backslashes become sets of one character, and `[^` becomes `[!`."""
    out, rest = [], iter(part)
    in_set = False
    before = ""
    for char in rest:
        if char == "\\":
            literal = next(rest, "\\")
            out.append(f"[{literal}]" if literal in "*?[" and not in_set else literal)
        elif char == "^" and before == "[" and in_set:
            out.append("!")
        else:
            in_set = (char == "[" and "]" in part) or (in_set and char != "]")
            out.append(char)
        before = char
    return "".join(out)


def _expand(text: str) -> list[str]:
    """All alternatives of the braces, nested ones too; raises `ConfigError` when too many."""
    waiting, done = [text], list[str]()
    while waiting:
        current = waiting.pop()
        span = _first_braces(current)
        if span is None:
            done.append(current)
        else:
            begin, end = span
            choices = _split(current[begin + 1 : end], ",")
            waiting += [current[:begin] + choice + current[end + 1 :] for choice in choices]
        if len(waiting) + len(done) > _MAX_ALTERNATIVES:
            raise ConfigError(f"a glob has too many alternatives: {text[:60]}", hint=_HINT)
    return done


def _first_braces(text: str) -> tuple[int, int] | None:
    depth, begin = 0, 0
    for position, char in _unescaped(text):
        if char == "{":
            begin = position if depth == 0 else begin
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if depth == 0:
                return begin, position
    return None


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside of braces and without a backslash."""
    pieces, begin, depth = [], 0, 0
    for position, char in _unescaped(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == separator and depth <= 0:
            pieces.append(text[begin:position])
            begin = position + 1
    return [*pieces, text[begin:]]


def _unescaped(text: str) -> Iterator[tuple[int, str]]:
    is_escaped = False
    for position, char in enumerate(text):
        if not is_escaped and char != "\\":
            yield position, char
        is_escaped = char == "\\" and not is_escaped
