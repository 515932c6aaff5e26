"""A job that is being done: its parts, and its state, which is on disk after each `save`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.builds.order import Order
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import JobContext
from smidr_ci.forges.gitlab.joblog import TraceLog
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState, Phase
from smidr_ci.forges.gitlab.orders import order_for
from smidr_ci.forges.gitlab.script import JobScript, read_script
from smidr_ci.forges.gitlab.stops import JobStops
from smidr_ci.forges.gitlab.trace import Trace
from smidr_ci.forges.gitlab.workshop import LeftForLater, Workshop
from smidr_ci.trust import Trust

__all__ = ["OpenJob"]

_ORDER: Final = tuple(Phase)


@dataclass
class OpenJob:
    """What all phases of one job work with."""

    folder: JobFolder
    state: JobState
    context: JobContext
    client: RunnerClient
    workshop: Workshop
    stops: JobStops
    trace: Trace
    joblog: TraceLog

    @property
    def id(self) -> str:
        """Unique on this host."""
        return self.folder.path.name

    @property
    def trust(self) -> Trust:
        """How far it is trusted, as it was decided when it came."""
        return Trust(self.state.trust or Trust.UNTRUSTED)

    @property
    def project(self) -> Path:
        """Where its sources are, once they are there."""
        return Path(self.state.project)

    def is_past(self, phase: Phase) -> bool:
        """Whether this phase is over."""
        return _ORDER.index(self.state.phase) > _ORDER.index(phase)

    def save(self, **changes: object) -> None:
        """Change the state; on disk when this returns. Raises `HostError`."""
        self.state = self.folder.update(self.state, **changes)

    def raise_if_left(self) -> None:
        """Raise `LeftForLater` when the agent ends and nothing else stopped the job."""
        if self.stops.leave.is_set() and self.stops.reason is None:
            raise LeftForLater

    def script(self) -> JobScript:
        """What the job shall do; raises `ConfigError`."""
        step = self.context.job.step("script")
        return read_script(step.script if step else (), self.context.variables)

    def order(self, script: JobScript, project: Path | None = None) -> Order:
        """The order for the build, by the config as it is now; raises `ConfigError`.

        `project` is another checkout than the job's own.
        """
        return order_for(self.context, script.build, project or self.project, self.trust)
