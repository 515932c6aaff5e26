"""A build's record as JSON: the one shape that the CLI, the API and files share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import Any

from smidr_ci.builds.model import BuildRecord

__all__ = ["record_as_dict", "record_summary"]

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
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def record_summary(record: BuildRecord) -> dict[str, Any]:
    """What a list shows of a build."""
    return {name: _plain(getattr(record, name)) for name in _SUMMARY}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of a record
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in asdict(value).items()}
    return str(value) if isinstance(value, str) else value
