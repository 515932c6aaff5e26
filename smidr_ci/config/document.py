"""YAML text into a tree of nodes that know their places, within limits a stranger can't stretch.

The parser's events are composed here and not by PyYAML's loader: its C composer recurses without
a limit, and places, duplicate keys and the expansion of aliases are lost in what it constructs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import yaml

from smidr_ci.config.matching import shown

__all__ = [
    "MAX_BYTES",
    "Mapping",
    "Node",
    "Place",
    "Scalar",
    "Sequence",
    "YamlError",
    "compose",
    "place_of",
]

MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 50_000
_MERGE: Final = "<<"
_STANDARD: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = {f"{_STANDARD}{name}" for name in ("str", "int", "float", "bool", "null")}
_Event = Any
"""One of PyYAML's events, whose attributes are untyped."""
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


class YamlError(Exception):
    """What is wrong with the text itself, and where."""

    def __init__(self, message: str, place: Place, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint


@dataclass(frozen=True)
class Scalar:
    """A single value as written; only a plain one (without quotes) has a type by its look."""

    place: Place
    text: str
    is_plain: bool
    tag: str | None = None
    """`str`, `int`, ... when the file says so explicitly."""
    size: int = 1


@dataclass(frozen=True)
class Sequence:
    """A list."""

    place: Place
    items: tuple[Node, ...]
    size: int


@dataclass(frozen=True)
class Mapping:
    """Keys, each once, in the order of the file."""

    place: Place
    entries: dict[str, tuple[Place, Node]]
    size: int
    """Nodes below and including this one, with aliases counted as often as they are used."""


Node = Scalar | Sequence | Mapping


def compose(text: str) -> Node:
    """The one document in the text; raises `YamlError`."""
    composer = _Composer(yaml.parse(text, Loader=_LOADER))
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        raise YamlError(_explain(error), place, _HINT) from None
    except yaml.reader.ReaderError as error:
        place = place_of(text, error.position)
        raise YamlError(f"is not YAML: {error.reason}", place) from None
    except yaml.YAMLError as error:
        raise YamlError(f"is not YAML: {error}", Place(1, 1)) from None


_HINT: Final = "Check indentation and quotes; a value with : or # or {} or [] needs quotes."


def _explain(error: yaml.MarkedYAMLError) -> str:
    context = f" ({error.context})" if error.context else ""
    return f"is not YAML: {error.problem or 'syntax error'}{context}"


def place_of(text: str, position: int) -> Place:
    """The place of a character offset."""
    before = text[:position]
    return Place(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


class _Composer:
    def __init__(self, events: Iterator[_Event]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node:
        next(self._events)  # the stream's start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            raise YamlError("is empty", Place(1, 1))
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlError("holds more than one YAML document", _start(after), "Remove the --- .")
        return root

    def _node(self, event: _Event, depth: int) -> Node:
        place = _start(event)
        if depth > _MAX_DEPTH:
            raise YamlError(f"is nested deeper than {_MAX_DEPTH} levels", place)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        node = self._compose(event, place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _compose(self, event: _Event, place: Place, depth: int) -> Node:
        self._count(1, place)
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.implicit[0] and event.style in {None, ""}
            return Scalar(place, event.value, is_plain, _scalar_tag(event, place))
        if isinstance(event, yaml.SequenceStartEvent):
            _check_collection_tag(event, f"{_STANDARD}seq", place)
            items = tuple(self._items(depth))
            return Sequence(place, items, 1 + sum(item.size for item in items))
        _check_collection_tag(event, f"{_STANDARD}map", place)
        entries = self._entries(depth)
        return Mapping(place, entries, 1 + sum(node.size for _, node in entries.values()))

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> dict[str, tuple[Place, Node]]:
        entries: dict[str, tuple[Place, Node]] = {}
        merged: list[Mapping] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                raise YamlError("has a key that is not a word", key.place)
            if key.text == _MERGE and key.is_plain:
                merged += _merge_sources(value)
            elif key.text in entries:
                line = entries[key.text][0].line
                raise YamlError(
                    f"has the key {shown(key.text)} twice; the first one is in line {line}",
                    key.place,
                    "Remove one of them.",
                )
            else:
                entries[key.text] = (key.place, value)
        for source in merged:
            self._count(source.size, source.place)
            entries = {**source.entries, **entries}
        return entries

    def _alias(self, event: _Event, place: Place) -> Node:
        name = str(event.anchor)
        node = self._anchors.get(name)
        if node is None:
            raise YamlError(
                f"uses *{name[:60]}, but no value before it is marked &{name[:60]}", place
            )
        self._count(node.size, place)
        return node

    def _count(self, nodes: int, place: Place) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise YamlError(f"holds more than {_MAX_NODES} values, counting aliases", place)


def _start(event: _Event) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _scalar_tag(event: _Event, place: Place) -> str | None:
    if event.tag in {None, "!"}:
        return None
    if event.tag not in _SCALAR_TAGS:
        raise YamlError(f"uses the tag {event.tag[:60]}, which is not allowed", place)
    return str(event.tag).removeprefix(_STANDARD)


def _check_collection_tag(event: _Event, expected: str, place: Place) -> None:
    if event.tag not in {None, "!", expected}:
        raise YamlError(f"uses the tag {event.tag[:60]}, which is not allowed", place)


def _merge_sources(value: Node) -> list[Mapping]:
    nodes = value.items if isinstance(value, Sequence) else (value,)
    mappings = [node for node in nodes if isinstance(node, Mapping)]
    if len(mappings) != len(nodes):
        raise YamlError("merges (<<) something that is not a mapping", value.place)
    return mappings
