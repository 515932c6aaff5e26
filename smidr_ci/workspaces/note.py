"""`workspace.json`: what a workspace says of itself once its process is gone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import open_untrusted, write_atomic

__all__ = ["Note"]

_NAME: Final = "workspace.json"
_LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Note:
    """Whose the workspace is, where its other directories are, and since when it rests."""

    build_id: str = ""
    extra: Mapping[str, Path] = field(default_factory=dict)
    released: datetime | None = None
    size_bytes: int = 0

    def with_extra(self, roots: Mapping[str, Path]) -> Note:
        """With a new private directory under each root: `<root>/<build-id>-<random>/<name>`."""
        tag = f"{self.build_id}-{secrets.token_hex(3)}"
        return replace(
            self, extra={name: root.absolute() / tag / name for name, root in roots.items()}
        )

    def write(self, folder: Path) -> None:
        """Store it in the workspace, whole or not at all."""
        raw = {
            "build_id": self.build_id,
            "extra": {name: str(path) for name, path in self.extra.items()},
            "released": self.released and self.released.isoformat(),
            "size_bytes": self.size_bytes,
        }
        write_atomic(folder / _NAME, json.dumps(raw, indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Note:
        """The workspace's note; an empty one when it is missing or damaged."""
        try:
            with open_untrusted(folder / _NAME) as file:
                return cls._from(json.loads(file.read(_LIMIT_BYTES)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    @classmethod
    def _from(cls, raw: Mapping[str, Any]) -> Note:
        released = raw["released"]
        return cls(
            build_id=str(raw["build_id"]),
            extra={str(name): Path(path) for name, path in raw["extra"].items()},
            released=datetime.fromisoformat(released) if released else None,
            size_bytes=int(raw["size_bytes"]),
        )
