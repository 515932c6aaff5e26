"""Takes secrets out of a stream of bytes, however it is cut into writes.

Three filters, in this order: phrases, parameters of URLs, tokens known by their prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["MASK", "Masker", "phrases_of"]

MASK: Final = b"[MASKED]"
_SHORTEST_LINE: Final = 8
_ANCHOR: Final = 8
_URL_PARAMETERS: Final = (
    "private_token",
    "authenticity_token",
    "rss_token",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
)
_URL_HEADS: Final = tuple(f"{sign}{name}=".encode() for name in _URL_PARAMETERS for sign in "?&")
_URL_VALUE: Final = rb"[^\s&\"'<>]"
_PREFIXES: Final = (
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
)
_TOKEN_VALUE: Final = rb"[A-Za-z0-9._=-]"


def phrases_of(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """What to look for: trimmed, no doubles, longest first; of a long text also each line."""
    found: set[bytes] = set()
    for secret in secrets:
        lines = [line.strip() for line in secret.splitlines()]
        found.add(secret.strip().encode("utf-8", "replace"))
        if len(lines) > 1:
            found |= {
                line.encode("utf-8", "replace") for line in lines if len(line) >= _SHORTEST_LINE
            }
    found.discard(b"")
    return tuple(sorted(found, key=lambda phrase: (-len(phrase), phrase)))


class Masker:
    """All three filters for one stream. Not thread-safe."""

    def __init__(self, secrets: Iterable[str], prefixes: Iterable[str] = ()) -> None:
        heads = [prefix.encode() for prefix in dict.fromkeys((*_PREFIXES, *prefixes)) if prefix]
        self._filters: tuple[_Phrases | _Values, ...] = (
            _Phrases(phrases_of(secrets)),
            _Values(_URL_HEADS, _URL_VALUE, re.IGNORECASE),
            _Values(heads, _TOKEN_VALUE, 0),
        )

    def feed(self, data: bytes) -> bytes:
        """What can be shown by now; the beginning of a possible secret waits for the rest."""
        for stage in self._filters:
            data = stage.feed(data)
        return data

    def end(self) -> bytes:
        """What still waited, when nothing more comes; then the stream may begin again."""
        data = b""
        for stage in self._filters:
            data = stage.feed(data) + stage.end()
        return data

    def dump(self) -> list[str]:
        """What it holds, for JSON."""
        return [stage.held.decode("latin-1") + stage.mode for stage in self._filters]

    def load(self, state: Sequence[str]) -> None:
        """Go on from what `dump` gave."""
        for stage, text in zip(self._filters, state, strict=True):
            stage.held, stage.mode = text[:-1].encode("latin-1"), text[-1:]


class _Phrases:
    """Replaces whole phrases, the longest that fits."""

    mode = "-"

    def __init__(self, phrases: Sequence[bytes]) -> None:
        self.held = b""
        self._phrases = phrases
        self._pattern = re.compile(b"|".join(map(re.escape, phrases))) if phrases else None

    def feed(self, data: bytes) -> bytes:
        if self._pattern is None:
            return data
        data = self.held + data
        shown, position = [], 0
        undecided = _undecided_from(data, self._phrases, 0)
        for found in self._pattern.finditer(data):
            if found.start() >= undecided:
                break
            shown += [data[position : found.start()], MASK]
            position = found.end()
            if position > undecided:
                undecided = _undecided_from(data, self._phrases, position)
        self.held = data[undecided:]
        return b"".join([*shown, data[position:undecided]])

    def end(self) -> bytes:
        rest, self.held = self.held, b""
        return self._pattern.sub(MASK, rest) if self._pattern is not None else rest


class _Values:
    """Replaces what follows one of the heads, for as long as its bytes are of one class."""

    def __init__(self, heads: Sequence[bytes], value: bytes, flags: int) -> None:
        self.held = b""
        self.mode = "-"
        """`-` outside, `h` behind a head, `v` within a value that was replaced."""
        self._heads = heads
        self._fold = bool(flags & re.IGNORECASE)
        ordered = sorted(heads, key=len, reverse=True)
        self._head = re.compile(b"|".join(map(re.escape, ordered)), flags)
        self._value = re.compile(value + b"*")

    def feed(self, data: bytes) -> bytes:
        data = self.held + data
        shown: list[bytes] = []
        position = 0
        while position < len(data):
            if self.mode != "-":
                position = self._pass_value(data, position, shown)
                continue
            found = self._head.search(data, position)
            if found is None:
                break
            shown.append(data[position : found.end()])
            position, self.mode = found.end(), "h"
        folded = data.lower() if self._fold else data
        undecided = _undecided_from(folded, self._heads, position) if self.mode == "-" else position
        self.held = data[undecided:]
        return b"".join([*shown, data[position:undecided]])

    def end(self) -> bytes:
        rest, self.held, self.mode = self.held, b"", "-"
        return rest

    def _pass_value(self, data: bytes, position: int, shown: list[bytes]) -> int:
        found = self._value.match(data, position)
        end = found.end() if found is not None else position
        if end > position and self.mode == "h":
            shown.append(MASK)
            self.mode = "v"
        if end < len(data):
            self.mode = "-"
        return end


def _undecided_from(data: bytes, phrases: Sequence[bytes], start: int) -> int:
    """Where the longest end of `data` begins that may be the beginning of a phrase."""
    first = len(data)
    for phrase in phrases:
        position = max(start, len(data) - len(phrase) + 1)
        while position < first:
            # A longer piece to look for is found faster; near the end only less is there.
            anchor = phrase[: min(_ANCHOR, len(data) - position)]
            position = data.find(anchor, position, first + len(anchor))
            if position < 0:
                # Not found with this anchor: what remains is shorter than it.
                position = max(start, len(data) - len(anchor) + 1, len(data) - len(phrase) + 1)
                position = _short_end(data, phrase, position, first)
                first = min(first, position)
                break
            if phrase.startswith(data[position:]):
                first = position
                break
            position += 1
    return first


def _short_end(data: bytes, phrase: bytes, position: int, first: int) -> int:
    while position < first:
        if phrase.startswith(data[position:]):
            return position
        position += 1
    return first
