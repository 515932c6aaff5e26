"""The port to a container engine: what a build asks of it, and what it may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

__all__ = ["ContainerRuntime", "ContainerSpec", "Exit", "Handle", "Mount", "User"]


@dataclass(frozen=True)
class Mount:
    """A host path bound into the container."""

    source: Path
    target: PurePosixPath
    writable: bool = False


@dataclass(frozen=True)
class User:
    """Who the processes of a build are, inside and outside; never root."""

    uid: int
    gid: int
    name: str = "builder"
    home: PurePosixPath = PurePosixPath("/smidr/home")


@dataclass(frozen=True)
class ContainerSpec:
    """One container of one build."""

    build_id: str
    image: str
    """Image id, or a reference that is present."""
    command: tuple[str, ...]
    user: User
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: PurePosixPath = PurePosixPath("/smidr/build")
    entrypoint: tuple[str, ...] = ()
    """Put before `command`; the image's own entrypoint is never used."""
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    shm_bytes: int | None = None
    network: str | None = None
    """Engine's network mode; None is the engine's default."""
    role: str = "build"
    """`build` names the container `smidr-build-<build-id>`; a shell has another role."""
    labels: Mapping[str, str] = field(default_factory=dict)
    read_only_root: bool = False
    """Only mounts can be written, and whoever starts it mounts /etc/passwd and the like."""
    restarts: bool = False
    """The engine starts it again whenever it ends, also after the host's own restart."""


@dataclass(frozen=True)
class Handle:
    """A container that was started; stays valid after a restart of this process."""

    build_id: str
    container_id: str
    is_running: bool = True
    role: str = "build"
    has_started: bool = True
    """False when whoever created it died before the start."""


@dataclass(frozen=True)
class Exit:
    """How a container's main process ended."""

    code: int
    oom_killed: bool
    """The kernel killed a process of the container for want of memory, as far as the engine saw."""


class ContainerRuntime(Protocol):
    """A container engine.

    All calls block and may come from any thread. A call that can't reach the engine raises
    `EngineError`; `wait` first tries again for a while, since an engine may restart while its
    containers run on. Calls on a container that is gone: `wait` raises `EngineError`, `interrupt`,
    `kill` and `remove` do nothing.
    """

    def start(self, spec: ContainerSpec) -> Handle:
        """Create and start a detached container; raises `EngineError`, leaving nothing behind."""

    def find(self, build_id: str) -> Handle | None:
        """The build's container, running or ended, by its label."""

    def list_builds(self) -> list[Handle]:
        """All containers that carry our label, running or ended."""

    def wait(self, handle: Handle, timeout_s: float) -> Exit | None:
        """Wait for the end; None when it still runs after `timeout_s`."""

    def interrupt(self, handle: Handle) -> None:
        """Send SIGTERM to the main process: the driver's clean stop."""

    def kill(self, handle: Handle) -> None:
        """Send SIGKILL."""

    def remove(self, handle: Handle) -> None:
        """Remove the container, running or not."""
