"""The one seam between a build and whoever watches it: terminal, API, forge."""

from __future__ import annotations

from typing import Protocol

from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord

__all__ = ["BuildObserver", "SilentObserver"]


class BuildObserver(Protocol):
    """Told what happens, in order, from one thread at a time except `note`.

    An observer only shows: it must return quickly and not raise. The console's text is not passed
    here; it is read from the build's log file by offset.
    """

    def changed(self, record: BuildRecord) -> None:
        """The build reached another stage or its final state."""

    def note(self, text: str) -> None:
        """One line about preparation, such as a layer that is fetched; from any thread."""

    def progressed(self, progress: Progress) -> None:
        """BitBake went on; called at most a few times a second."""


class SilentObserver:
    """Shows nothing."""

    def changed(self, record: BuildRecord) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def progressed(self, progress: Progress) -> None:
        """Ignore it."""
