"""What a workspace is, for whoever leases or lists one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

__all__ = ["Budget", "RestingWorkspace", "Workspace"]


@dataclass(frozen=True)
class Workspace:
    """A build directory that this process holds alone until it is released."""

    path: Path
    """`<root>/<key>/<n>`; never mounted itself, so that no build can touch its marker and lock."""
    key: str
    build_id: str
    extra: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    """Private directories under other roots, by name."""
    warm_key: str = ""
    """Whoever has the same may use it after this build; empty when nobody may."""
    after: str = ""
    """The build that had it before, and left what this one goes on with; empty when it is fresh."""
    failures: int = 0
    """Builds that failed in it since the last that did not."""
    size_bytes: int = 0
    """Disk space when the build before left it."""

    @property
    def build(self) -> Path:
        """TOPDIR, mounted at `/smidr/build`."""
        return self.path / "build"

    @property
    def home(self) -> Path:
        """The builder's HOME."""
        return self.path / "home"

    @property
    def is_warm(self) -> bool:
        """Whether an earlier build's TMPDIR is in it."""
        return bool(self.after)


@dataclass(frozen=True)
class RestingWorkspace:
    """A workspace that nobody holds: kept on purpose, or left behind by a crash."""

    path: Path
    key: str
    build_id: str
    """Empty when a crash left not even that."""
    extra: Mapping[str, Path]
    released: datetime | None
    """None for what a crash left."""
    size_bytes: int
    """Disk space at release; 0 when it was never measured."""
    warm_key: str = ""
    """Builds with the same may go on in it; empty when none may."""


@dataclass(frozen=True)
class Budget:
    """How much the kept workspaces of one kind may take."""

    count: int
    size_bytes: int
