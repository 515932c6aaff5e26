"""`workspace.json`: what a workspace says of itself once its process is gone."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import open_untrusted, write_atomic

__all__ = ["Note", "boot_id"]

_NAME: Final = "workspace.json"
_LIMIT_BYTES: Final = 64 * 1024
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Changes with each start of the host (random(4)); empty where the kernel does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Note:
    """Whose the workspace is, where its other directories are, and since when it rests."""

    build_id: str = ""
    extra: Mapping[str, Path] = field(default_factory=dict)
    released: datetime | None = None
    size_bytes: int = 0
    warm_key: str = ""
    """Whoever has the same may use it next, if `boot_id` says so."""
    after: str = ""
    failures: int = 0
    boot_id: str = ""
    """The host's start in which it was left in a good state; empty when it was not. What was
    written shortly before a power cut may be missing."""

    def with_extra(self, roots: Mapping[str, Path]) -> Note:
        """With a new private directory under each root: `<root>/<build-id>-<random>/<name>`."""
        tag = f"{self.build_id}-{secrets.token_hex(3)}"
        return replace(
            self, extra={name: root.absolute() / tag / name for name, root in roots.items()}
        )

    def is_reusable(self, boot_id: str) -> bool:
        """Whether another build may go on in it."""
        return bool(self.warm_key and self.released and boot_id) and self.boot_id == boot_id

    def write(self, folder: Path) -> None:
        """Store it in the workspace, whole or not at all."""
        raw = {
            **asdict(self),
            "extra": {name: str(path) for name, path in self.extra.items()},
            "released": self.released and self.released.isoformat(),
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
            warm_key=str(raw.get("warm_key", "")),
            after=str(raw.get("after", "")),
            failures=int(raw.get("failures", 0)),
            boot_id=str(raw.get("boot_id", "")),
        )
