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

    @property
    def build(self) -> Path:
        """TOPDIR, mounted at `/smidr/build`."""
        return self.path / "build"

    @property
    def home(self) -> Path:
        """The builder's HOME."""
        return self.path / "home"


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


@dataclass(frozen=True)
class Budget:
    """How much the kept workspaces of one root may take."""

    count: int
    size_bytes: int
