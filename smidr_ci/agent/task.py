"""One build of an agent that is not over."""

from __future__ import annotations

from dataclasses import dataclass

from smidr_ci.agent.feed import FeedObserver
from smidr_ci.builds.slots import Waiting
from smidr_ci.cancel import CancelToken
from smidr_ci.locks import KernelLock

__all__ = ["Task"]


@dataclass(eq=False)
class Task:
    """What the agent has of it, besides its record."""

    claim: KernelLock
    cancel: CancelToken
    observer: FeedObserver
    waiting: Waiting
    likeness: str = ""
    """Equal for builds that may share a run."""
    alike: tuple[str, ...] = ()
    """Builds that were taken out of the queue since they may share its run, as it shall begin."""
    run_id: str = ""
    """The run that it shares."""
    is_run: bool = False
    """It is run for others."""
    is_driven: bool = False
    """A thread brings it to its end; else it waits."""
