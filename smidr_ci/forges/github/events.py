"""What a webhook tells, cut down to hints: GitHub itself is asked for the state behind them.

Every key but those used here is optional, whatever the event (docs.github.com, "Webhook events and
payloads").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from smidr_ci.forges.github.site import is_repository_name

__all__ = ["Hint", "hint_of"]

_HANDLED: Final[Mapping[str, frozenset[str]]] = {
    "check_run": frozenset({"rerequested", "requested_action"}),
    "check_suite": frozenset({"rerequested"}),
    "merge_group": frozenset({"checks_requested"}),
    "workflow_job": frozenset({"queued", "waiting", "in_progress", "completed"}),
}
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LOGIN: Final = re.compile(r"[A-Za-z0-9_\[\]-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class Hint:
    """Something may have happened to one thing of one repository."""

    event: str
    action: str
    guid: str
    """Of the delivery: the same each time that it is sent."""
    repository: str
    number: int = 0
    """Of the check run, check suite or job."""
    run_id: int = 0
    head_sha: str = ""
    sender: str = ""
    """Login of whoever did it."""
    identifier: str = ""
    """Which button was pressed."""

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any]) -> Self:
        """The way back from `as_plain`; raises `TypeError` for another shape."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in raw.items() if key in known})

    def as_plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def hint_of(event: str, guid: str, payload: object) -> Hint | None:
    """What is worth a look; None for events that mean nothing here."""
    if not isinstance(payload, dict):
        return None
    action = _text(payload.get("action"))
    repository = _text(_part(payload, "repository").get("full_name"))
    if action not in _HANDLED.get(event, ()) or not is_repository_name(repository):
        return None
    thing = _part(payload, event)
    sha, login = _text(thing.get("head_sha")), _text(_part(payload, "sender").get("login"))
    return Hint(
        event=event,
        action=action,
        guid=guid,
        repository=repository,
        number=_number(thing.get("id")),
        run_id=_number(thing.get("run_id")),
        head_sha=sha if _SHA.fullmatch(sha) else "",
        sender=login if _LOGIN.fullmatch(login) else "",
        identifier=_text(_part(payload, "requested_action").get("identifier"))[:20],
    )


def _part(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = payload.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 1000 else ""


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 < value < 1 << 63 else 0
