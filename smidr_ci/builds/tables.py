"""The store's tables, and how a record becomes rows and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)

from smidr_ci.builds.model import (
    ArtifactRecord,
    BuildRecord,
    BuildState,
    SstateSummary,
    StageRecord,
    Work,
)
from smidr_ci.errors import FailureKind
from smidr_ci.trust import Trust

__all__ = [
    "HEAD_REVISION",
    "builds",
    "details",
    "metadata",
    "outbox",
    "recipes",
    "record_from",
    "tokens",
    "values_of",
]

HEAD_REVISION: Final = "0004"
"""The newest revision in `migrations/versions`; compared on opening, so that Alembic stays out."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes, kept as UTC without a zone since SQLite has none."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To UTC; a naive time is a fault of ours."""
        if value is not None and value.tzinfo is None:
            raise ValueError("naive datetime in a build record")
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """From UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()

builds = Table(
    "builds",
    metadata,
    # Order of arrival: what lists sort and page by, since two builds may share a time.
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("build_id", String(64), nullable=False, unique=True),
    Column("customer", String(64), nullable=False),
    Column("project", String(128), nullable=False),
    Column("targets", JSON, nullable=False),
    Column("state", String(32), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("started", UtcDateTime),
    Column("ended", UtcDateTime),
    Column("deleted", UtcDateTime),
    Column("exit_code", Integer),
    Column("failure_kind", String(32)),
    Column("failure_message", Text, nullable=False),
    Column("config_path", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("sstate", JSON(none_as_null=True)),
    Column("tasks", JSON, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("owner_pid", Integer),
    Column("description", Text, nullable=False, server_default=""),
    Column("is_resumable", Boolean, nullable=False, server_default=false()),
    Column("cancel_reason", Text, nullable=False, server_default=""),
    Column("trust", String(16), nullable=False, server_default="trusted"),
    Column("warm_from", String(64), nullable=False, server_default=""),
    Column("shared_run", String(64), nullable=False, server_default=""),
    Column("work", JSON(none_as_null=True)),
    Index("builds_by_state", "state", "seq"),
    Index("builds_by_customer", "customer", "seq"),
    Index("builds_by_project", "project", "seq"),
    sqlite_autoincrement=True,
)

details = Table(
    "build_details",
    metadata,
    Column(
        "build_id",
        String(64),
        ForeignKey("builds.build_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("config_text", Text, nullable=False),
    Column("layer_commits", JSON, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("artifacts", JSON, nullable=False),
    Column("rebuilt", JSON, nullable=False, server_default="[]"),
    Column("order", JSON, nullable=False, server_default="{}"),
)
"""The heavy part of a record, apart so that lists don't read over it."""

outbox = Table(
    "outbox",
    metadata,
    # Deliveries to one receiver go out in this order.
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("receiver", String(255), nullable=False),
    Column("key", String(255), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("build_id", String(64)),
    Column("created", UtcDateTime, nullable=False),
    Column("due", UtcDateTime, nullable=False),
    # waiting, sending, delivered, superseded, given-up: the last three with the time `ended`.
    Column("state", String(16), nullable=False),
    Column("ended", UtcDateTime),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    UniqueConstraint("receiver", "key", name="outbox_once"),
    Index("outbox_by_receiver", "state", "receiver", "seq"),
    Index("outbox_by_kind", "state", "receiver", "kind", "seq"),
    Index("outbox_by_end", "ended"),
    sqlite_autoincrement=True,
)
"""What must reach somebody else; see `agent.outbox`."""

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scope", String(16), nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("expires", UtcDateTime),
    Column("revoked", UtcDateTime),
    Column("last_used", UtcDateTime),
)
"""Who may use the API from elsewhere; see `api.tokens`."""

recipes = Table(
    "recipes",
    metadata,
    Column("recipe", String(128), primary_key=True),
    Column("built", Integer, nullable=False),
    Column("restored", Integer, nullable=False),
    # Task -> seconds when it last ran.
    Column("times", JSON, nullable=False),
    Column("last_built", UtcDateTime),
    Column("last_used", UtcDateTime, nullable=False),
    # The last build that told of it.
    Column("build_id", String(64), nullable=False),
    Index("recipes_by_use", "last_used"),
    Index("recipes_by_build", "build_id"),
)
"""What recipes took on this host; see `builds.recipes`."""

_KEPT_APART: Final = frozenset(details.columns.keys()) - {"build_id"}
_NOT_STORED: Final = frozenset({"is_summary"})
_FIELDS: Final = frozenset(item.name for item in fields(BuildRecord)) - _NOT_STORED


def values_of(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Column values for `builds` and for `build_details`; `TypeError` for an unknown field."""
    unknown = changes.keys() - _FIELDS
    if unknown:
        raise TypeError(f"a build record has no {', '.join(sorted(unknown))}")
    light: dict[str, Any] = {}
    heavy: dict[str, Any] = {}
    for name, value in changes.items():
        (heavy if name in _KEPT_APART else light)[name] = _PLAIN.get(name, _as_it_is)(value)
    return light, heavy


def _stages_plain(stages: Sequence[StageRecord]) -> list[list[str | None]]:
    return [
        [stage.name, stage.started.isoformat(), stage.ended.isoformat() if stage.ended else None]
        for stage in stages
    ]


def _artifacts_plain(artifacts: Sequence[ArtifactRecord]) -> list[list[str | int]]:
    return [[item.path, item.size_bytes, item.sha256] for item in artifacts]


def _as_it_is(value: object) -> object:
    return value


_PLAIN: Final[Mapping[str, Callable[[Any], object]]] = {
    "stages": _stages_plain,
    "artifacts": _artifacts_plain,
    "sstate": lambda figures: figures and asdict(figures),
    "work": lambda figures: figures and asdict(figures),
    "findings": lambda findings: [dict(finding) for finding in findings],
    "rebuilt": lambda reasons: [dict(reason) for reason in reasons],
    "layer_commits": dict,
    "order": dict,
    "tasks": dict,
    "targets": list,
    "state": str,
    "trust": str,
    "failure_kind": lambda kind: kind and str(kind),
}


def record_from(row: Mapping[str, Any]) -> BuildRecord:
    """The record of a row of `builds`, alone (a summary) or joined with `build_details`."""
    values = {name: value for name, value in row.items() if name in _FIELDS}
    values |= {
        "targets": tuple(row["targets"]),
        "state": BuildState(row["state"]),
        "trust": Trust(row["trust"]),
        "failure_kind": FailureKind(row["failure_kind"]) if row["failure_kind"] else None,
        "stages": tuple(_stage(*stage) for stage in row["stages"]),
        "sstate": SstateSummary(**row["sstate"]) if row["sstate"] else None,
        "work": Work(**row["work"]) if row["work"] else None,
    }
    if "artifacts" in row:
        values["artifacts"] = tuple(ArtifactRecord(*item) for item in row["artifacts"])
        values["findings"] = tuple(row["findings"])
        values["rebuilt"] = tuple(row["rebuilt"])
    return BuildRecord(**values, is_summary="artifacts" not in row)


def _stage(name: str, started: str, ended: str | None) -> StageRecord:
    end = datetime.fromisoformat(ended) if ended else None
    return StageRecord(name, datetime.fromisoformat(started), end)
