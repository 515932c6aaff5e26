"""One cancellation source per build; forge, CLI, signals and time limits all end here."""

from __future__ import annotations

import threading
from enum import IntEnum

from smidr_ci.errors import CancelledError, FailureKind

__all__ = ["CancelLevel", "CancelToken"]


class CancelLevel(IntEnum):
    """How hard to stop: not at all, BitBake's clean stop, or at once."""

    NONE = 0
    INTERRUPT = 1
    KILL = 2


class CancelToken:
    """Thread-safe; the level only rises, the first reason stays.

    `cancel` takes a lock, so a signal handler calls it from a thread of its own.
    """

    def __init__(self) -> None:
        self._level = CancelLevel.NONE
        self._reason = ""
        self._kind = FailureKind.CANCELLED
        self._raised = (threading.Event(), threading.Event())

    @property
    def level(self) -> CancelLevel:
        """The hardest level asked for so far."""
        return self._level

    @property
    def reason(self) -> str:
        """Why, in words for the user; empty while nobody cancelled."""
        return self._reason

    @property
    def kind(self) -> FailureKind:
        """`cancelled`, or `timeout` when a time limit did it."""
        return self._kind

    @property
    def is_cancelled(self) -> bool:
        """Whether anybody cancelled."""
        return self._level > CancelLevel.NONE

    def cancel(
        self,
        reason: str,
        level: CancelLevel = CancelLevel.INTERRUPT,
        kind: FailureKind = FailureKind.CANCELLED,
    ) -> None:
        """Ask for a stop; asking again can only make it harder."""
        if self._level == CancelLevel.NONE:
            self._reason, self._kind = reason, kind
        self._level = max(self._level, level)
        for event, reached in zip(
            self._raised, (CancelLevel.INTERRUPT, CancelLevel.KILL), strict=True
        ):
            if self._level >= reached:
                event.set()

    def wait(self, seconds: float, level: CancelLevel = CancelLevel.INTERRUPT) -> bool:
        """Wait at most so long for a cancel of at least this level; say whether it came."""
        event = self._raised[0 if level <= CancelLevel.INTERRUPT else 1]
        return event.wait(seconds)

    def raise_if_cancelled(self) -> None:
        """Raise `CancelledError` once somebody cancelled; call between steps."""
        if self.is_cancelled:
            raise CancelledError(self._reason or "Cancelled", kind=self._kind)
