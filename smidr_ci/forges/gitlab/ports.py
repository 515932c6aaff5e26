"""What the phases of a job are for its lifecycle: ports, and what they tell each other."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from smidr_ci.builds.order import Order
from smidr_ci.cancel import CancelToken
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.payload import Job

__all__ = [
    "Caches",
    "Checkout",
    "Dependencies",
    "JobLog",
    "Outcome",
    "ScriptEnd",
    "ScriptRun",
    "Scripts",
    "Uploads",
]


@dataclass(frozen=True)
class Outcome:
    """How a job's script went; what is uploaded depends on it."""

    succeeded: bool
    failure_reason: str = ""
    """GitLab's word, such as `script_failure`; empty after success."""
    exit_code: int = 0
    message: str = ""
    """One line: why it did not succeed."""
    build_id: str = ""
    """The build it came to, if any."""


class JobLog(Protocol):
    """Where a phase writes for the reader of the job's page. Calling it writes one plain line.

    Secrets are masked behind it. All methods may be called from any thread.
    """

    def __call__(self, text: str) -> None:
        """A line of the runner's own."""

    def info(self, text: str) -> None:
        """A green line."""

    def warning(self, text: str) -> None:
        """A yellow line that begins with WARNING:."""

    def error(self, text: str) -> None:
        """A red line that begins with ERROR:."""

    def output(self, data: bytes, **marks: int) -> None:
        """What a command printed, in pieces of any size; `marks` say how far it was read."""

    def section(
        self, name: str, header: str = "", *, is_collapsed: bool = False
    ) -> AbstractContextManager[None]:
        """A part of the log that can be folded."""


class Checkout(Protocol):
    """Brings a job's sources into its directory."""

    def run(self, job: Job, directory: Path, cancel: CancelToken, log: JobLog) -> Path:
        """Check out the job's commit; the project's directory.

        That lies under `directory`. What is done shows as one or more sections of the log. It may
        be called again for a directory where an earlier call was killed. Raises `CancelledError`
        after a cancel, and `SmidrError` with a kind that says whose fault it is.
        """


class Caches(Protocol):
    """Keeps what `cache:` of a job names for later jobs of the same owner.

    Whatever goes wrong is a warning in the log; raised is `CancelledError` alone, and by `restore`
    a `ConfigError` for a policy that is none.
    """

    def restore(
        self, job: Job, owner: str, directory: Path, cancel: CancelToken, log: JobLog
    ) -> bool:
        """Unpack what was kept into the project's directory; whether that may have changed it."""

    def save(
        self,
        job: Job,
        owner: str,
        directory: Path,
        cancel: CancelToken,
        log: JobLog,
        *,
        succeeded: bool,
    ) -> None:
        """Keep what fits this end of the script; again is fine."""


class Dependencies(Protocol):
    """Brings the artifacts of earlier jobs into the project's directory."""

    def __call__(self, job: Job, directory: Path, cancel: CancelToken, say: JobLog) -> bool:
        """Whether there were any; raises `SmidrError` when they can't be had."""


class Uploads(Protocol):
    """Takes a job's artifacts and reports to the server."""

    def run(
        self,
        job: Job,
        directory: Path,
        artifacts: Path | None,
        outcome: Outcome,
        cancel: CancelToken,
        log: JobLog,
    ) -> Sequence[PlacedFile]:
        """Upload what `job.artifacts` selects for this outcome, as one section of the log.

        Returned are the files that went to a store of the operator's instead.

        `directory` is the project's, `artifacts` the build's own artifacts, None without a build.
        It may be called again after a kill: what is there already must not be an error. Raises
        `SmidrError` when something that must arrive did not.
        """


@dataclass(frozen=True)
class ScriptRun:
    """Lines of a job's script to run, in order, in one shell that stops at the first failure."""

    name: str
    """Unique in the job: `before`, `after`, `after_script` or a hook's name."""
    lines: tuple[str, ...]
    directory: Path
    """The project's directory; the shell starts there."""
    order: Order
    """The build that the lines stand around: they run in its image, within its limits."""
    job_id: str
    """Unique on this host."""
    folder: Path
    """The job's own directory, which no build sees; it goes with the job."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """File variables: name and content; the shell sees the path under that name."""
    shown_bytes: int = 0
    """So much of the output is in the log already; see `mark`."""
    timeout_s: float | None = None

    @property
    def mark(self) -> str:
        """Name of the mark that says how much of the output is in the log."""
        return f"lines_{self.name}"


@dataclass(frozen=True)
class ScriptEnd:
    """How lines ended."""

    code: int
    """The shell's exit code."""
    has_finished: bool = True
    """Whether the last line was reached; `exit 0` before it ends the whole script well."""


class Scripts(Protocol):
    """Runs lines of a job's script, in the builder's container and never on the host."""

    def run(
        self, script: ScriptRun, cancel: CancelToken, leave: threading.Event, log: JobLog
    ) -> ScriptEnd | None:
        """Run the lines, with their output in the log.

        After `leave` it returns None soon and the lines run on: a later call with the same script
        goes on with them, and runs none twice. Raises `CancelledError` after a cancel or when the
        time is over (kind `timeout`), and `SmidrError` when the lines could not be run at all.
        """

    def exports(self, folder: Path) -> Mapping[str, str]:
        """What lines of the job with this folder wrote to GITLAB_ENV so far."""

    def forget(self, job_id: str) -> None:
        """The job is over, or its last lines are: nothing of them is needed any more.

        Does nothing when there is nothing; never raises.
        """
