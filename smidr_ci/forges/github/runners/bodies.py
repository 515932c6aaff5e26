"""What a runner lives in: a process of this host, or a container."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from smidr_ci.forges.github.runners.archive import Archive
from smidr_ci.forges.github.runners.folder import RunnerFolder

__all__ = ["Body", "Life"]


class Life(Protocol):
    """One runner that was started, by this process or an earlier one; used from one thread."""

    def wait(self, seconds: float) -> bool:
        """Wait for its end at most so long; whether it has ended, with all that it started."""

    def output(self) -> str:
        """The last of what it printed; empty when that can't be had."""

    def exit_code(self) -> int | None:
        """Of the listener, once it has ended; None when nobody saw it."""

    def interrupt(self) -> None:
        """Ask it to end in good order; it may take a minute, and is killed then."""

    def kill(self) -> None:
        """End it and all that it started, at once."""

    def close(self) -> None:
        """Let go of it; it goes on."""


class Body(Protocol):
    """How runners of one mode are started and found again; safe to use from any thread."""

    def prepare(self) -> None:
        """Get what runners of this mode need and what takes long; raises `SmidrError`."""

    def check(self) -> None:
        """Raise `ConfigError` or `HostError` when no runner can be started as things are."""

    def start(self, folder: RunnerFolder, archive: Archive, config: str) -> Life:
        """Unpack the archive and start the runner; raises `SmidrError`, with nothing running.

        The configuration is a secret, see `ports.Runners.start`.
        """

    def find(self, folder: RunnerFolder) -> Life:
        """The runner of a directory that an earlier process made, ended or not."""

    def clean(self, folder: RunnerFolder) -> None:
        """After its end: see that nothing of it is left running; must not raise."""

    def sweep(self, root: Path) -> None:
        """End runners below `root` that have no directory any more; must not raise."""
