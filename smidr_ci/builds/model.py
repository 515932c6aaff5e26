"""What a build is: states, stages, and the record that history keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from smidr_ci.bitbake.tasks import SstateSummary
from smidr_ci.errors import FailureKind
from smidr_ci.trust import Trust

__all__ = ["ArtifactRecord", "BuildRecord", "BuildState", "SstateSummary", "StageRecord", "Work"]


class BuildState(StrEnum):
    """A build's stage, then its final state."""

    QUEUED = "queued"
    PREPARING = "preparing"
    BUILDING = "building"
    EXTRACTING = "extracting-artifacts"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in {BuildState.COMPLETED, BuildState.FAILED, BuildState.CANCELLED}


@dataclass(frozen=True)
class StageRecord:
    """One stage with its times; `ended` is None while it runs."""

    name: str
    started: datetime
    ended: datetime | None = None


@dataclass(frozen=True)
class ArtifactRecord:
    """One file of a build, relative to its artifact directory."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Work:
    """What the tasks of a build cost, and what those would have cost that shared state spared.

    Times are those of tasks as if they had run one after the other. What was spared is an estimate:
    how long the tasks took when they last ran on this host, of recipes that were restored.
    """

    executed_s: float = 0.0
    spared_s: float = 0.0
    restored: int = 0
    """Objects that were restored from shared state."""
    timed: int = 0
    """Those of them whose recipe has run here before, so that there is a time for it."""
    restored_bytes: int = 0
    """Size of the restored objects that lie on this host, packed as they are."""


@dataclass(frozen=True)
class BuildRecord:
    """All that history knows of a build."""

    build_id: str
    customer: str
    project: str
    targets: tuple[str, ...]
    state: BuildState
    created: datetime
    config_text: str = ""
    config_path: str = ""
    description: str = ""
    """What the project says of itself."""
    requested_by: str = ""
    trust: Trust = Trust.TRUSTED
    """Whether it could write to the shared caches."""
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    failure_kind: FailureKind | None = None
    failure_message: str = ""
    image: str = ""
    layer_commits: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[StageRecord, ...] = ()
    sstate: SstateSummary | None = None
    tasks: Mapping[str, int] = field(default_factory=dict)
    """Counts: total, executed, from_sstate, failed; recipes parsed and cached."""
    findings: tuple[Mapping[str, Any], ...] = ()
    artifacts: tuple[ArtifactRecord, ...] = ()
    rebuilt: tuple[Mapping[str, Any], ...] = ()
    """Why tasks ran again that an earlier build had done; see `reasons`."""
    workspace: str = ""
    """Host path of the workspace while it is kept."""
    warm_from: str = ""
    """The build in whose workspace it went on; empty when it had a fresh one."""
    shared_run: str = ""
    """Id of the run that was made once for this build and others like it; empty when it was built
    for itself. The run is kept out of lists, and has the result that its builds took over."""
    work: Work | None = None
    owner_pid: int | None = None
    """Process that drives the build; its lock tells whether it lives."""
    is_resumable: bool = False
    """An agent drives it, and goes on with it after a restart."""
    cancel_reason: str = ""
    """Somebody asked for a stop, and why; holds over a restart."""
    order: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, see `builds.order`; empty for a build of a foreground command."""
    is_summary: bool = False
    """From a list: config text, order, layer commits, findings, artifacts and reasons
    were not loaded."""
