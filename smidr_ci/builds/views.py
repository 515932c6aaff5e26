"""Records and views as JSON: the one shape that the CLI, the API and files share."""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.service import BuildView

__all__ = [
    "from_plain",
    "plain",
    "record_as_dict",
    "record_from_dict",
    "record_summary",
    "view_as_dict",
    "view_from_dict",
]

Kind = TypeVar("Kind")

_SUMMARY = (
    "build_id",
    "customer",
    "project",
    "targets",
    "state",
    "created",
    "started",
    "ended",
    "exit_code",
    "failure_kind",
    "failure_message",
)


def record_as_dict(record: BuildRecord) -> dict[str, Any]:
    """All that is known of a build; times are ISO 8601 in UTC."""
    return {field.name: plain(getattr(record, field.name)) for field in fields(record)}


def record_from_dict(raw: Mapping[str, Any]) -> BuildRecord:
    """The way back, also from `record_summary`; raises `ValueError` for another shape.

    Keys of a newer smidr are passed over.
    """
    is_summary = bool(raw.get("is_summary", "config_text" not in raw))
    return from_plain(BuildRecord, {**raw, "is_summary": is_summary})


def record_summary(record: BuildRecord) -> dict[str, Any]:
    """What a list shows of a build."""
    return {name: plain(getattr(record, name)) for name in _SUMMARY}


def view_as_dict(view: BuildView) -> dict[str, Any]:
    """A build as it is at one moment: `version`, `record`, `progress`, `notes`, `waiting_for`."""
    return {**plain(view), "record": record_as_dict(view.record)}


def view_from_dict(raw: Mapping[str, Any]) -> BuildView:
    """The way back; raises `ValueError` for another shape."""
    return from_plain(BuildView, raw)


def plain(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    """What JSON can hold of frozen dataclasses, mappings, tuples, times, paths and enums."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def from_plain(kind: type[Kind], raw: object) -> Kind:
    """The dataclass that `plain` took apart; unknown keys are passed over.

    Raises `ValueError` when something is missing or of another type.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{kind.__name__} is no object")  # noqa: TRY004 - it is about the JSON
    hints, required = _shape(cast("Hashable", kind))
    missing = [name for name in required if name not in raw]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    values = {}
    for name, hint in hints.items():
        if name in raw:
            try:
                values[name] = _typed(hint, raw[name])
            except (ValueError, TypeError) as error:
                raise ValueError(f"{kind.__name__}.{name}: {error}") from error
    return kind(**values)


_Shape = tuple[dict[str, Any], tuple[str, ...]]


@cache
def _shape(kind: Any) -> _Shape:  # noqa: ANN401 - any dataclass
    hints = get_type_hints(kind)
    parts = fields(kind)
    required = [
        part.name for part in parts if part.default is MISSING and part.default_factory is MISSING
    ]
    return {part.name: hints[part.name] for part in parts}, tuple(required)


def _typed(hint: Any, raw: Any) -> Any:  # noqa: ANN401, PLR0911 - one return per kind of type
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin in {Union, types.UnionType}:
        return None if raw is None else _typed(next(item for item in inner if item != _NONE), raw)
    if origin is tuple:
        return tuple(_typed(inner[0], item) for item in _checked(list, raw))
    if origin is not None and issubclass(origin, Mapping):
        pairs = _checked(dict, raw).items()
        return {_key(inner[0], key): _typed(inner[1], value) for key, value in pairs}
    if is_dataclass(hint):
        return from_plain(cast("type[Any]", hint), raw)
    if hint is datetime:
        return datetime.fromisoformat(_checked(str, raw))
    if issubclass(hint, Enum):
        return hint(raw)
    return _checked(hint, raw)


_NONE = type(None)


def _key(hint: type[Any], key: str) -> Any:  # noqa: ANN401 - a key of any mapping
    return hint(key)


def _checked(kind: type[Any], raw: Any) -> Any:  # noqa: ANN401 - the caller says what it is
    allowed = (int, float) if kind is float else kind
    if not isinstance(raw, allowed) or (isinstance(raw, bool) and kind is not bool):
        raise ValueError(f"is {type(raw).__name__} and not {kind.__name__}")
    return raw
