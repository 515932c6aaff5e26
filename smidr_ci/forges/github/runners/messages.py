"""What a scale set's queue brings, read leniently: the protocol is a preview and may grow.

Facts: github.com/actions/scaleset, types.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.github.site import is_repository_name
from smidr_ci.text import printable

__all__ = ["Item", "ItemKind", "Message", "Statistics"]

_MOST_ITEMS: Final = 1000
_MOST_COUNT: Final = 1_000_000
_JOB_MESSAGES: Final = "RunnerScaleSetJobMessages"


class ItemKind(StrEnum):
    """What happened to a job."""

    AVAILABLE = "JobAvailable"
    ASSIGNED = "JobAssigned"
    STARTED = "JobStarted"
    COMPLETED = "JobCompleted"


@dataclass(frozen=True)
class Statistics:
    """How many jobs and runners a scale set has: the truth, whatever items were cut off."""

    available: int = 0
    acquired: int = 0
    assigned: int = 0
    """With those that run."""
    running: int = 0
    registered: int = 0
    busy: int = 0
    idle: int = 0

    @classmethod
    def of(cls, raw: object) -> Self:
        """From JSON; what is missing or no number counts as none."""
        found = raw if isinstance(raw, dict) else {}
        names = ("AvailableJobs", "AcquiredJobs", "AssignedJobs", "RunningJobs")
        runners = ("RegisteredRunners", "BusyRunners", "IdleRunners")
        return cls(*(_count(found.get(f"total{name}")) for name in (*names, *runners)))


@dataclass(frozen=True)
class Item:
    """News of one job."""

    kind: ItemKind
    request_id: int
    repository: str
    """`owner/name`; empty when it is told in no form that could be used."""
    run_id: int = 0
    job_name: str = ""
    workflow: str = ""
    event: str = ""
    runner_name: str = ""
    result: str = ""


@dataclass(frozen=True)
class Message:
    """One message of the queue."""

    message_id: int
    items: tuple[Item, ...]
    statistics: Statistics | None
    """None when it has none: then what was told last still holds."""

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """From an answer of the queue; raises `ForgeError` when it has no number to confirm."""
        found = reply.object()
        number = found.get("messageId")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ForgeError("the message has no number", where=reply.url)
        is_of_jobs = found.get("messageType") in {_JOB_MESSAGES, None, ""}
        items = _items(found.get("body")) if is_of_jobs else ()
        told = found.get("statistics")
        return cls(number, items, Statistics.of(told) if isinstance(told, dict) else None)

    def of_kind(self, kind: ItemKind) -> list[Item]:
        """Its items of one kind."""
        return [item for item in self.items if item.kind is kind]


def _items(body: object) -> tuple[Item, ...]:
    """What can't be read is passed over: the statistics are what counts."""
    if not isinstance(body, str) or not body.strip():
        return ()
    try:
        found = json.loads(body.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return ()
    listed = found if isinstance(found, list) else []
    made = (_item(raw) for raw in listed[:_MOST_ITEMS] if isinstance(raw, dict))
    return tuple(item for item in made if item is not None)


def _item(raw: Mapping[str, Any]) -> Item | None:
    try:
        kind = ItemKind(str(raw.get("messageType")))
    except ValueError:
        return None
    repository = f"{_text(raw, 'ownerName')}/{_text(raw, 'repositoryName')}"
    return Item(
        kind=kind,
        request_id=_number(raw.get("runnerRequestId")),
        repository=repository if is_repository_name(repository) else "",
        run_id=_number(raw.get("workflowRunId")),
        job_name=_text(raw, "jobDisplayName"),
        workflow=_text(raw, "jobWorkflowRef"),
        event=_text(raw, "eventName"),
        runner_name=_text(raw, "runnerName"),
        result=_text(raw, "result"),
    )


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return printable(value)[:500] if isinstance(value, str) else ""


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 < value < 1 << 63 else 0


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(value, 0), _MOST_COUNT)
