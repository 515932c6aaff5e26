"""Show a running build: one live line on a terminal, plain lines when piped."""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol, TextIO

import click

from smidr_ci.bitbake.progress import Progress, render_line
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.clock import Clock
from smidr_ci.text import printable

__all__ = ["LiveWatcher", "PlainWatcher", "Watcher", "watcher_for"]

_PLAIN_EVERY_S = 10.0


class Watcher(Protocol):
    """A `BuildObserver` that owns the terminal while it is open."""

    def changed(self, record: BuildRecord) -> None:
        """The build reached another stage or its final state."""

    def note(self, text: str) -> None:
        """One line about preparation."""

    def progressed(self, progress: Progress) -> None:
        """BitBake went on."""

    def close(self) -> None:
        """Leave the terminal as it was found."""


def watcher_for(stream: TextIO, clock: Clock) -> Watcher:
    """The live line when the stream is a terminal that can redraw, else plain lines."""
    return LiveWatcher(stream, clock) if stream.isatty() else PlainWatcher(clock)


class PlainWatcher:
    """Lines on standard error: stages and notes at once, progress every ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun = clock.monotonic()
        self._shown = float("-inf")
        self._last = ""

    def changed(self, record: BuildRecord) -> None:
        """Print the stage's name."""
        if not record.state.is_final:
            self.note(str(record.state))

    def note(self, text: str) -> None:
        """Print the line; a build goes on when nobody reads any more."""
        with contextlib.suppress(OSError):
            click.echo(printable(text), err=True)

    def progressed(self, progress: Progress) -> None:
        """Print where BitBake is, when there is something new and some time has passed."""
        now = self._clock.monotonic()
        line = render_line(progress, now - self._begun)
        if line != self._last and now - self._shown >= _PLAIN_EVERY_S:
            self.note(line)
            self._shown, self._last = now, line

    def close(self) -> None:
        """Nothing to put back."""


class LiveWatcher:
    """One line that is redrawn in place; notes scroll above it."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
        from rich.status import Status  # noqa: PLC0415 - as above

        self._clock = clock
        self._begun = clock.monotonic()
        self._console = Console(file=stream, highlight=False, markup=False)
        self._status = Status("", console=self._console, spinner="line")
        self._status.start()
        self._progress: Progress | None = None
        self._stage = str(BuildState.QUEUED)
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress-line", daemon=True)
        self._ticker.start()

    def changed(self, record: BuildRecord) -> None:
        """Show the stage at the head of the line."""
        self._stage = str(record.state)
        self._redraw()

    def note(self, text: str) -> None:
        """Print a line above."""
        with contextlib.suppress(OSError):  # the terminal is gone
            self._console.print(printable(text), soft_wrap=True)

    def progressed(self, progress: Progress) -> None:
        """Redraw with BitBake's figures."""
        self._progress = progress
        self._redraw()

    def close(self) -> None:
        """Take the line away."""
        self._done.set()
        self._ticker.join()
        self._status.stop()

    def _tick(self) -> None:
        while not self._done.wait(1.0):
            self._redraw()

    def _redraw(self) -> None:
        from rich.text import Text  # noqa: PLC0415 - loaded already

        elapsed = self._clock.monotonic() - self._begun
        if self._progress is None or self._stage != BuildState.BUILDING:
            line = f"{self._stage} ({elapsed:.0f} s)"
        else:
            line = f"{self._stage}: {render_line(self._progress, elapsed)}"
        width = max(20, self._console.width - 4)
        self._status.update(Text(printable(line)[:width], no_wrap=True, overflow="ellipsis"))
