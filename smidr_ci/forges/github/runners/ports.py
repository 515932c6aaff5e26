"""Between those who ask GitHub for jobs and the one who keeps official runners on this host.

`local.local_runners` implements `LocalRunnersMaker`; everything else here needs only this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from smidr_ci.builds.host import Host

__all__ = [
    "EXIT_MEANINGS",
    "Downloads",
    "LocalRunner",
    "LocalRunnersMaker",
    "Room",
    "RunnerDownload",
    "RunnerState",
    "Runners",
]

EXIT_MEANINGS: Final = {
    0: "ok",
    1: "terminated",
    2: "retryable",
    3: "updating",
    4: "run-once updating",
    5: "session conflict",
    6: "config refreshed",
    7: "version deprecated",
}
"""Exit codes of Runner.Listener (actions/runner, Runner.Common/Constants.cs)."""


class RunnerState(StrEnum):
    """What a local runner does."""

    STARTING = "starting"
    """The process was started and is not known to listen yet."""
    IDLE = "idle"
    """It listens for its job."""
    BUSY = "busy"
    EXITED = "exited"
    """The process is gone; what it left is kept until `Runners.stop`."""


@dataclass(frozen=True)
class LocalRunner:
    """One ephemeral runner of this host, alive or not removed yet."""

    name: str
    """The name that it has at GitHub: 1 to 64 of letters, digits, '.', '_' and '-'."""
    state: RunnerState
    started_at: datetime
    """In UTC."""
    changed_at: datetime
    """In UTC: when it got into this state."""
    labels: tuple[str, ...] = ()
    """As given to `Runners.start`."""
    exit_code: int | None = None
    """Of the listener; None while it runs, and for one whose end nobody saw."""
    job: str = ""
    """What the runner's own log calls its job; empty when it had none."""
    had_job: bool = False
    """Whether it ever took a job, as far as is known here."""

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.state is not RunnerState.EXITED


class Room(NamedTuple):
    """How many more runners this host may start."""

    free: int
    reason: str = ""
    """Why there is no more room, for people: `slots` are all taken, or disk or memory is short."""
    is_short: bool = False
    """Something other than slots is missing: an idle runner had better take no job either."""


@dataclass(frozen=True)
class RunnerDownload:
    """One entry of GitHub's `actions/runners/downloads`."""

    os: str
    architecture: str
    download_url: str
    filename: str
    sha256_checksum: str = ""
    temp_download_token: str = field(default="", repr=False)


Downloads = Callable[[], Sequence[RunnerDownload]]
"""Asks GitHub where to get the official runner; raises `ForgeError`."""


class Runners(Protocol):
    """The local supervisor of one registration; safe to use from any thread.

    State is on disk and in the processes: after a kill -9 the next one adopts what still runs.
    """

    def open(self) -> None:
        """Adopt the runners of an earlier process; returns within seconds."""

    def close(self) -> None:
        """Stop watching. Runners go on, and the next process adopts them."""

    def start(self, name: str, encoded_jit_config: str, labels: Sequence[str]) -> None:
        """Start a runner; returns once its process was made, with the state STARTING.

        The config is a secret: it goes into the environment only, never on a command line, to a
        file outside the runner's private directory, or into a log. Raises `ConflictError` for a
        name that is known, `SmidrError` when it can't be started; then nothing of it is left.
        """

    def running(self) -> Mapping[str, LocalRunner]:
        """All by name, also those that exited and were not removed with `stop`."""

    def capacity(self) -> Room:
        """Room for more, from slots, disk, memory and whether there is a runner to start at all.

        Cheap enough to be asked every few seconds.
        """

    def stop(self, name: str) -> None:
        """End a runner's process, if it runs, and remove what it left; unknown names do nothing.

        The caller has removed the registration from GitHub first, so that it can get no job.
        """

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change, from any thread; returns what ends that.

        It must return at once and may call nothing of this class.
        """

    @property
    def version(self) -> str:
        """Of the official runner that would be started; empty when there is none yet."""


class LocalRunnersMaker(Protocol):
    """Makes the supervisor of a registration; nothing runs before `open`."""

    def __call__(
        self, registration: str, host: Callable[[], Host], downloads: Downloads
    ) -> Runners:
        """`registration` is the name, and so the name of the directory for the runners.

        Raises `ConfigError` for settings of no use.
        """
