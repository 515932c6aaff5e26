"""What a build left, as `manifest.json` tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from smidr_ci.errors import HostError
from smidr_ci.files import open_untrusted

__all__ = ["MANIFEST_NAME", "Artifact", "LeftOut", "Manifest", "shown"]

MANIFEST_NAME: Final = "manifest.json"
_VERSION: Final = 1
_LIMIT_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Artifact:
    """One file; `path` is relative to the artifact directory, with `/`."""

    path: str
    size_bytes: int
    sha256: str
    is_executable: bool = False
    link: str | None = None
    """The relative symlink it is kept as; size and checksum are those of the file it leads to."""


@dataclass(frozen=True)
class LeftOut:
    """Something that a glob chose and that was not kept; `path` is safe to show."""

    path: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """All that was kept of one build, and what was not, both in the order of their paths."""

    build_id: str
    customer: str
    created: datetime
    artifacts: tuple[Artifact, ...] = ()
    unmatched: tuple[str, ...] = ()
    """Globs of the project that chose nothing."""
    refused: tuple[LeftOut, ...] = ()
    """Links that lead out of the deploy directory."""
    skipped: tuple[LeftOut, ...] = ()
    """Devices, pipes, dangling links, and names that no file should have."""

    @property
    def total_bytes(self) -> int:
        """The size of all files; links count nothing."""
        return sum(item.size_bytes for item in self.artifacts if item.link is None)

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        raw = {
            "version": _VERSION,
            **asdict(self),
            "created": self.created.isoformat(),
            "total_bytes": self.total_bytes,
        }
        return json.dumps(raw, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of an artifact directory; `HostError` when it is missing or damaged."""
        path = folder / MANIFEST_NAME
        try:
            with open_untrusted(path) as file:
                return cls._from(json.loads(_read_all(file)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(
                f"the list of artifacts can't be read: {error}",
                where=str(path),
                hint="The disk may be damaged. Build again, or delete the directory by hand.",
            ) from error

    @classmethod
    def _from(cls, raw: Mapping[str, Any]) -> Manifest:
        if raw["version"] != _VERSION:
            raise ValueError(f"its version is {raw['version']!r}, not {_VERSION}")
        return cls(
            build_id=raw["build_id"],
            customer=raw["customer"],
            created=datetime.fromisoformat(raw["created"]),
            artifacts=tuple(Artifact(**item) for item in raw["artifacts"]),
            unmatched=tuple(raw["unmatched"]),
            refused=tuple(LeftOut(**item) for item in raw["refused"]),
            skipped=tuple(LeftOut(**item) for item in raw["skipped"]),
        )


def shown(name: str) -> str:
    """A path from a build, safe in messages: what is not printable is escaped."""
    if name.isprintable():
        return name
    return (
        name.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .encode("unicode_escape")
        .decode("ascii")
    )


def _read_all(file: IO[bytes]) -> bytes:
    parts, total = [], 0
    while chunk := file.read(1 << 20):
        parts.append(chunk)
        total += len(chunk)
        if total > _LIMIT_BYTES:
            raise ValueError("it is too long")
    return b"".join(parts)
