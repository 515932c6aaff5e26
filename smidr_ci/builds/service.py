"""The port to whoever owns the builds of a host: the agent, for the API and the forges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord
from smidr_ci.cancel import CancelLevel

if TYPE_CHECKING:  # clients need the views alone, and not what a host needs for an order
    from smidr_ci.builds.order import Order

__all__ = ["AGENT_STOPPED", "BuildService", "BuildView", "Note"]

AGENT_STOPPED: Final = "The agent was stopped, with its builds."
"""Reason of a cancel that is nobody's wish about this one build."""


@dataclass(frozen=True)
class Note:
    """One line about preparation; numbers rise by one per build, from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class BuildView:
    """What can be seen of a build at one moment."""

    version: int
    """Rises with every change; who has seen version n waits for a higher one."""
    record: BuildRecord
    progress: Progress | None = None
    """None before BitBake runs, and for a build that is over."""
    notes: tuple[Note, ...] = ()
    """The last thousand at most; gone when the agent restarts."""
    waiting_for: str = ""
    """Why a queued build has not begun, as a sentence; empty for any other."""


class BuildService(Protocol):
    """Takes orders and owns the builds that they become. All calls may come from any thread."""

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        """Check an order, store it and queue it; the record is on disk when this returns.

        `source` is a directory with what came along with the order; it must lie under
        `$SMIDR_HOME`, carry the marker, and be `order.directory`. The build takes it over.
        Raises `ConfigError`, `UsageError`, or `BusyError` when the agent drains or the queue is
        full; then nothing is stored and `source` stays the caller's.
        """

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        """Ask for a stop, which holds over a restart; a build that is over stays as it is.

        Raises `UsageError` when there is no such build.
        """

    def view(self, build_id: str) -> BuildView:
        """The build with this id or unique beginning; raises `UsageError`."""

    def subscribe(self, build_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called after each change of a build; returns what ends that.

        `wake` is called from any thread, must return at once and not raise; ask `view` then.
        Changes between two looks are seen as one: a slow watcher costs nothing.
        """
