"""The port between a forge and the agent's outbox.

A forge puts what must go out, and implements `Deliverer`; the agent keeps, orders and repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError

__all__ = ["Deliverer", "Delivery", "GiveUp", "Outgoing", "RetryLater"]


@dataclass(frozen=True)
class Delivery:
    """One thing that must reach somebody else, at one try."""

    receiver: str
    """Who gets it, such as `gitlab:1:job:42`. One receiver gets all in the order of `put`."""
    key: str
    """Unique per receiver and the same at each try: for receivers that know such keys."""
    kind: str
    """What it is, for the deliverer, such as `status` or `trace`."""
    payload: Mapping[str, Any]
    build_id: str | None
    created: datetime
    attempt: int
    """1 at the first try."""
    cancel: CancelToken
    """Raised when the agent stops: end a long upload with `RetryLater` then."""

    @property
    def is_retry(self) -> bool:
        """An earlier try was begun, and may have arrived without our hearing of it: look first."""
        return self.attempt > 1


class RetryLater(SmidrError):  # noqa: N818 - an answer to the outbox, not a fault
    """The receiver can't take it now; try again after so many seconds, or as the outbox thinks."""

    kind = FailureKind.FORGE

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class GiveUp(SmidrError):  # noqa: N818 - an answer to the outbox, not a fault
    """The receiver will never take it (a job that is gone); the next one may go on."""

    kind = FailureKind.FORGE


class Deliverer(Protocol):
    """Takes deliveries to receivers of one kind."""

    def deliver(self, delivery: Delivery) -> None:
        """Bring it there; returning means that it has arrived.

        Called from any thread: never twice at once for one receiver, but for several receivers
        side by side. It must have time limits of its own, and must look first whether
        an earlier try arrived when `is_retry`. After `RetryLater`, and any other error but
        `GiveUp`, it is tried again, and everything else for the receiver waits. Messages are stored
        and shown: no secret in them.
        """


class Outgoing(Protocol):
    """Where a forge puts what must go out."""

    def put(
        self,
        receiver: str,
        key: str,
        kind: str,
        payload: Mapping[str, Any],
        *,
        build_id: str | None = None,
        supersedes: bool = False,
    ) -> bool:
        """Store it for delivery; it is on disk when this returns.

        A key that the receiver had before changes nothing and gives False, so a caller may repeat
        after a crash. `payload` is plain JSON of at most 256 KiB without secrets; of big data it
        holds the path. `supersedes` drops what still waits for the receiver with the same kind.
        """
