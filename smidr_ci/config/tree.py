"""A composed document into plain values, with variables substituted and every place kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from smidr_ci.config.base import KeyPath
from smidr_ci.config.document import Mapping, Node, Place, Scalar, Sequence
from smidr_ci.config.substitution import Substitution, SubstitutionError

__all__ = ["Plain", "Problem", "SourceMap", "Values", "dotted", "parse_key_path", "read_values"]

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(
    r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,2})?"
)
_NULLS: Final = {"", "~", "null", "Null", "NULL"}
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file: what, where, and what to do."""

    message: str
    where: str
    hint: str = ""
    key: str = ""
    """The key in question, such as `layers[0].git`; empty when it is about the whole file."""


@dataclass(frozen=True)
class SourceMap:
    """Where each key of a file stands; `name` is the file as the user called it."""

    name: str
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    written: dict[KeyPath, str] = field(default_factory=dict)
    """Text of the plain scalars that YAML reads as something else than text."""
    substituted: set[KeyPath] = field(default_factory=set)
    """Scalars that a variable was put into."""

    def place(self, key_path: KeyPath | str, *, of_key: bool = False) -> str:
        """`name:line:column` of the value (or its key); of what surrounds it when it is not there.

        A key path is a tuple, or text such as `layers[0].git`.
        """
        path = parse_key_path(key_path) if isinstance(key_path, str) else key_path
        found = self.keys.get(path) if of_key else None
        while found is None and path:
            found = self.values.get(path)
            path = path[:-1]
        found = found or self.values.get((), Place(1, 1))
        return f"{self.name}:{found.line}:{found.column}"


def parse_key_path(text: str) -> KeyPath:
    """`layers[0].git` as `("layers", 0, "git")`; anything else is one key."""
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            return (text,)
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    return tuple(steps)


def dotted(path: KeyPath) -> str:
    """`("layers", 0, "git")` as `layers[0].git`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            # A key is a stranger's text: no control characters, and no pages of it.
            name = step if step.isprintable() else ascii(step)[1:-1]
            text += f"{'.' if text else ''}{name[:80]}"
    return text


@dataclass(frozen=True)
class Values:
    """What the file says, as plain values, and what went wrong while reading them."""

    data: Plain
    source: SourceMap
    problems: tuple[tuple[KeyPath, Problem], ...]


def read_values(root: Node, name: str, substitution: Substitution | None) -> Values:
    """Type the scalars, put variables in, and remember every place."""
    reader = _Reader(SourceMap(name), substitution)
    data = reader.read(root, ())
    return Values(data, reader.source, tuple(reader.problems))


class _Reader:
    def __init__(self, source: SourceMap, substitution: Substitution | None) -> None:
        self.source = source
        self.problems: list[tuple[KeyPath, Problem]] = []
        self._substitution = substitution

    def read(self, node: Node, path: KeyPath) -> Plain:
        self.source.values[path] = node.place
        if isinstance(node, Sequence):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.items)]
        if isinstance(node, Mapping):
            return dict(self._entries(node, path))
        return self._scalar(node, path)

    def _entries(self, node: Mapping, path: KeyPath) -> Iterator[tuple[str, Plain]]:
        for key, (place, value) in node.entries.items():
            self.source.keys[(*path, key)] = place
            yield key, self.read(value, (*path, key))

    def _scalar(self, node: Scalar, path: KeyPath) -> Plain:
        text = node.text
        try:
            text = self._substitution.apply(text) if self._substitution else text
            value = _typed(text, node)
        except (SubstitutionError, ValueError) as error:
            hint = error.hint if isinstance(error, SubstitutionError) else ""
            where = self.source.place(path)
            problem = Problem(f"`{dotted(path)}`: {error}", where, hint, dotted(path))
            self.problems.append((path, problem))
            return text
        if not isinstance(value, str):
            self.source.written[path] = text
        if text != node.text:
            self.source.substituted.add(path)
        return value


def _typed(text: str, node: Scalar) -> Plain:
    if not text.isascii() and _has_surrogate(text):
        raise ValueError("holds half a character (a lone surrogate)")
    if node.tag is not None:
        return _by_tag(text, node.tag)
    return _by_look(text) if node.is_plain else text


def _by_look(text: str) -> str | int | float | bool | None:
    # YAML 1.1's octal 010, base-60 1:30 and dates are traps, so they stay text.
    if text in _NULLS:
        return None
    if text in {text.lower(), text.upper(), text.capitalize()} and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _by_tag(text: str, tag: str) -> str | int | float | bool | None:
    if tag == "str":
        return text
    value = _by_look(text)
    kinds = {"int": int, "float": int | float, "bool": bool, "null": type(None)}
    if not isinstance(value, kinds[tag]) or (isinstance(value, bool) and tag != "bool"):
        raise ValueError(f"is marked !!{tag}, but is none")
    return float(value) if tag == "float" and isinstance(value, int) else value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
