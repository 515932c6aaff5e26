"""A build in a GitLab job's log: each stage is a section that can be folded."""

from __future__ import annotations

import contextlib

import click

from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord
from smidr_ci.cli.watch import PlainWatcher
from smidr_ci.clock import Clock

__all__ = ["SectionWatcher"]


class SectionWatcher:
    """Implements `cli.watch.Watcher` (GitLab docs: "Custom collapsible sections")."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._plain = PlainWatcher(clock)
        self._open = ""
        self._count = 0

    def changed(self, record: BuildRecord) -> None:
        """End the section of the stage before, and begin the next one."""
        self._end()
        if not record.state.is_final:
            self._count += 1  # a stage that is tried again needs a name of its own
            self._open = f"smidr_{record.state.replace('-', '_')}_{self._count}"
            self._mark("start", f"\x1b[36;1msmidr: {record.state}\x1b[0;m")

    def note(self, text: str) -> None:
        """Print the line."""
        self._plain.note(text)

    def progressed(self, progress: Progress) -> None:
        """Print where BitBake is, at most every ten seconds."""
        self._plain.progressed(progress)

    def close(self) -> None:
        """End the last section."""
        self._end()

    def _end(self) -> None:
        if self._open:
            self._mark("end")
            self._open = ""

    def _mark(self, what: str, header: str = "") -> None:
        seconds = int(self._clock.now().timestamp())
        line = f"section_{what}:{seconds}:{self._open}\r\x1b[0K{header}"
        with contextlib.suppress(OSError):
            click.echo(line, err=True, color=True)
