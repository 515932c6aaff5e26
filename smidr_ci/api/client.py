"""The port that commands use to talk to an agent, whatever the transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from smidr_ci.agent.status import AgentStatus
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel

__all__ = ["AgentClient", "StartRequest"]


@dataclass(frozen=True)
class StartRequest:
    """A build as a client asks for it."""

    customer: str
    config_text: str
    config_name: str
    """The config's file name, for messages."""
    targets: tuple[str, ...] = ()
    clean: bool = False
    fresh: bool = False
    """Go on in no earlier build's workspace."""
    ref: str = ""
    """What is built, such as `refs/heads/main`; empty when that is not known."""
    clean_image: bool = False
    fetch_only: bool = False
    locked: bool = False
    keep_workspace: bool = False
    is_untrusted: bool = False
    """Build it as a stranger's; nobody can ask for more trust than a build has by itself."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What `${NAME}` in the config stands for."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for BitBake and recipes."""
    bundle: bytes = b""
    """A tar.gz with the layers that `path` names and the lockfile, by their relative paths."""
    directory: Path | None = None
    """Instead of a bundle: the config's directory on this host; over the unix socket only."""


class AgentClient(Protocol):
    """An agent, near or far.

    Every call may raise `SmidrError` with what the agent said, and `AgentUnreachableError` when
    it does not answer. Streams reconnect for a while by themselves and neither lose nor repeat
    anything; a build id may be a unique beginning.
    """

    def status(self) -> AgentStatus:
        """The agent's own state."""

    def start(self, request: StartRequest) -> BuildRecord:
        """Queue a build; its record."""

    def get(self, build_id: str) -> BuildRecord:
        """One build, whole."""

    def list(
        self,
        *,
        limit: int = 50,
        state: BuildState | None = None,
        customer: str | None = None,
        before: str | None = None,
    ) -> list[BuildRecord]:
        """Summaries, newest first; `before` is the last id of the previous page."""

    def watch(self, build_id: str) -> Iterator[BuildView]:
        """The build now and after each change, until it is over; the last view is final.

        Each view has only the notes that earlier views of this call did not have.
        """

    def logs(
        self, build_id: str, *, offset: int = 0, tail: int | None = None, follow: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Chunks of the console with their offsets; `tail` begins so many lines before the end."""

    def cancel(self, build_id: str, level: CancelLevel = CancelLevel.INTERRUPT) -> BuildRecord:
        """Ask for a stop; the record as it is now."""

    def artifacts(self, build_id: str) -> tuple[ArtifactRecord, ...]:
        """What the build left."""

    def download(
        self, build_id: str, path: str, target: Path, progress: Callable[[int], None]
    ) -> None:
        """Bring one artifact to `target`, checked against its SHA-256; goes on where it stopped.

        `progress` gets the bytes that are there.
        """

    def delete(self, build_id: str) -> None:
        """Hide a build that is over, with its log and artifacts."""

    def purge(self, deleted_before: datetime | None = None) -> tuple[str, ...]:
        """Remove hidden builds for good; their ids."""

    def drain(self) -> None:
        """Let the agent finish what runs, take nothing new, and end."""

    def stop(self, *, cancel_builds: bool = False) -> None:
        """End the agent; what runs goes on and is taken up by the next one, or is cancelled."""

    def close(self) -> None:
        """Give the connection back."""
