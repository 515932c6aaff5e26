"""What GitLab's jobs are done with on this host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.service import BuildService
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import JobContext
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import Caches, Checkout, Dependencies, Scripts, Uploads
from smidr_ci.forges.gitlab.trace import DEFAULT_LIMIT
from smidr_ci.home import Home
from smidr_ci.trust import Trust

__all__ = ["LeftForLater", "Workshop"]


@dataclass(frozen=True)
class Workshop:
    """What jobs are done with on this host."""

    home: Home
    builds: BuildService
    console_of: Callable[[str], Path]
    """Where a build's console lies, by its id."""
    artifacts_of: Callable[[BuildRecord], Path]
    checkout: Callable[[RunnerClient], Checkout]
    uploads: Callable[[RunnerClient], Uploads]
    builds_of: Callable[[str], Iterable[BuildRecord]] = lambda _customer: ()
    """A customer's builds, the newest first, to find one whose id a kill kept from being noted."""
    trust_of: Callable[[Job], Trust] = lambda _job: Trust.UNTRUSTED
    """How far a job is trusted, by the operator's settings."""
    tell: Callable[[JobContext, BuildRecord, Sequence[PlacedFile]], None] = (
        lambda _context, _record, _placed: None
    )
    """Takes a job's build when it was ordered, when it is over, and once more when files of it went
    to a store of the operator's; each maybe twice."""
    dependencies: Callable[[RunnerClient], Dependencies] | None = None
    """None when this host brings no artifacts of earlier jobs."""
    caches: Caches | None = None
    """None when this host keeps nothing for later jobs."""
    give: Callable[[Path], None] = lambda _directory: None
    """Makes all below a directory the files of the user whom builds run as."""
    scripts: Scripts | None = None
    """None when this host can't run lines of a script around the build."""
    clock: Clock = SystemClock()
    trace_limit: int = DEFAULT_LIMIT
    trace_interval_s: float = 3.0
    """Between two looks at a trace, until the server says otherwise."""
    final_attempts: int | None = None
    """How often to try to bring the final state; None for as long as the job's token is valid."""
    is_debug_trace_allowed: bool = True

    @property
    def checkouts(self) -> Path:
        """Root of the jobs' directories, which are kept for later jobs of the same project."""
        return self.home.root / "checkouts"


class LeftForLater(Exception):  # noqa: N818 - no fault
    """The agent ends; the job goes on with the next one."""
