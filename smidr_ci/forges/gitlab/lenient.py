"""Reads foreign JSON with patience: a missing or null value is its default, unknown keys pass.

A value of another type than it can mean is an error that names its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from smidr_ci.forges.errors import ForgeError

__all__ = ["Fields", "PayloadError"]

_TRUE: Final = frozenset({"true", "1", "t", "yes"})
_FALSE: Final = frozenset({"false", "0", "f", "no", ""})


class PayloadError(ForgeError):
    """What the server sent is not what the protocol says; `where` is the place in the JSON."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(
            f"the server's answer has no {expected} here",
            where=where,
            hint="Is this GitLab, and does a proxy change its answers?",
        )


class Fields:
    """One JSON object; `where` names it in errors."""

    def __init__(self, value: object, where: str) -> None:
        if value is not None and not isinstance(value, Mapping):
            raise PayloadError(where, "object")
        self._values: Mapping[str, Any] = value or {}
        self.where = where

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def keys(self) -> list[str]:
        """All keys, known or not."""
        return [str(key) for key in self._values]

    def raw(self, key: str) -> object:
        """The value as it is; None when missing."""
        return self._values.get(key)

    def text(self, key: str, default: str = "") -> str:
        """A string; numbers and booleans become one."""
        value = self._values.get(key)
        if value is None:
            return default
        return _as_text(value, f"{self.where}.{key}")

    def number(self, key: str, default: int = 0) -> int:
        """A whole number, also written as a string or with a fraction of zero."""
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            raise PayloadError(f"{self.where}.{key}", "number")
        try:
            return int(value) if isinstance(value, int | float) else int(str(value), 10)
        except (ValueError, OverflowError) as error:
            raise PayloadError(f"{self.where}.{key}", "number") from error

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false, also as a word or number."""
        value = self._values.get(key)
        if value is None:
            return default
        word = str(value).lower()
        if word not in _TRUE | _FALSE:
            raise PayloadError(f"{self.where}.{key}", "true or false")
        return word in _TRUE

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; a single string is a list of one."""
        value = self._values.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        place = f"{self.where}.{key}"
        if not isinstance(value, list):
            raise PayloadError(place, "list")
        return tuple(
            _as_text(item, f"{place}[{index}]")
            for index, item in enumerate(value)
            if item is not None
        )

    def object(self, key: str) -> Fields:
        """An object; an empty one when missing."""
        return Fields(self._values.get(key), f"{self.where}.{key}")

    def objects(self, key: str) -> Iterator[Fields]:
        """The objects of a list; nulls in it pass."""
        value = self._values.get(key)
        place = f"{self.where}.{key}"
        if value is None:
            return
        if not isinstance(value, list):
            raise PayloadError(place, "list")
        for index, item in enumerate(value):
            if item is not None:
                yield Fields(item, f"{place}[{index}]")


def _as_text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise PayloadError(where, "text")
