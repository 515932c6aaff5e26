"""Whether the host can take one more build now: free disk, and pressure on memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from smidr_ci.builds.places import usual_places
from smidr_ci.builds.pressure import memory_pressure
from smidr_ci.builds.slots import Waiting
from smidr_ci.caches.layout import FreeSpace, free_space
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.limits import Limits
from smidr_ci.errors import FailureKind, HostError
from smidr_ci.home import Home

__all__ = ["Admission", "HostAdmission", "admission_of", "device_of"]

_GIB: Final = 1024**3


class Admission(Protocol):
    """What a build must wait for that no other build's end is told by."""

    def check(self, build: Waiting) -> str | None:
        """Why the build, the next by all limits, can't start yet, as a sentence; None when it can.

        The answer is about the host: when it is no, no younger build is asked for. May take its
        time, and must not raise.
        """


def device_of(path: Path) -> int:
    """The number of the file system that holds the path, or would; raises `OSError`."""
    found = path.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return os.stat(found).st_dev


@dataclass(frozen=True)
class _Shortage:
    """One file system with too little left; `what` begins a sentence."""

    what: str
    path: Path
    key: str


@dataclass(frozen=True)
class HostAdmission:
    """The file systems that builds write to, each looked at once, and the kernel's word on memory.

    `free` and `device` may raise `OSError`; `pressure` is None where the kernel does not tell.
    """

    limits: Limits
    paths: tuple[Path, ...]
    agent_config: Path
    free: Callable[[Path], FreeSpace] = free_space
    device: Callable[[Path], int] = device_of
    pressure: Callable[[], float | None] = memory_pressure

    @property
    def sees_pressure(self) -> bool:
        """Whether memory pressure is known here, and looked at."""
        return self.limits.max_memory_pressure > 0 and self.pressure() is not None

    def check(self, build: Waiting) -> str | None:  # noqa: ARG002 - a port's; the host is one
        """See `Admission`."""
        return self._short_of_disk() or self._short_of_memory()

    def require(self, paths: Iterable[Path] = ()) -> None:
        """Refuse a build that would fill the disk, here or under its own `paths`.

        Raises `HostError`, of the kind `disk` but where a file system can't be looked at.
        """
        try:
            found = next(self._shortages((*self.paths, *paths)), None)
        except OSError as error:
            raise HostError(_unseen(error)) from error
        if found is not None:
            raise HostError(
                found.what,
                where=str(found.path),
                hint="Free some space ('smidr artifacts clean' and 'smidr doctor' help), or lower"
                f" {found.key} in {self.agent_config}.",
                kind=FailureKind.DISK,
            )

    def _short_of_disk(self) -> str | None:
        try:
            found = next(self._shortages(self.paths), None)
        except OSError as error:
            return _unseen(error)
        return f"{found.what} at {found.path} ({found.key})" if found else None

    def _shortages(self, paths: Iterable[Path]) -> Iterator[_Shortage]:
        seen: set[int] = set()
        for path in paths:
            device = self.device(path)
            if device not in seen:
                seen.add(device)
                yield from self._judge(path, self.free(path))

    def _judge(self, path: Path, space: FreeSpace) -> Iterator[_Shortage]:
        free, total = space.free_bytes, space.total_bytes
        wanted, percent = self.limits.min_free_disk, self.limits.min_free_disk_percent
        only = f"only {free / _GIB:.1f} GiB are free"
        if free < wanted:
            text = f"{only}, and a build wants {wanted / _GIB:.1f} GiB"
            yield _Shortage(text, path, "limits.min_free_disk")
        elif free * 100 < total * percent:
            text = f"{only} of {total / _GIB:.1f} GiB, and a build wants {percent:g} %"
            yield _Shortage(text, path, "limits.min_free_disk_percent")
        # Where inodes are made as needed, both numbers are 0.
        if space.free_inodes * 100 < space.total_inodes * percent:
            text = f"only {space.free_inodes} of {space.total_inodes} inodes are free"
            text += f", and a build wants {percent:g} %"
            yield _Shortage(text, path, "limits.min_free_disk_percent")

    def _short_of_memory(self) -> str | None:
        most = self.limits.max_memory_pressure
        found = self.pressure() if most > 0 else None
        if found is None or found <= most:
            return None
        return (
            f"memory is short: tasks stalled {found:.0f} % of the last 10 s, at most {most:g} %"
            " are allowed (limits.max_memory_pressure)"
        )


def admission_of(agent: AgentConfig, home: Home) -> HostAdmission:
    """The check of a host with the operator's settings."""
    places, artifacts = usual_places(agent, home), agent.directories.artifacts or home.artifacts
    paths = (home.root, places.workspaces, places.downloads, places.sstate, artifacts)
    return HostAdmission(agent.limits, paths, home.agent_config)


def _unseen(error: OSError) -> str:
    where = f" of {error.filename}" if error.filename else ""
    return f"can't see the free space{where}: {error.strerror or error}"
