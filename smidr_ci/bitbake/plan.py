"""What the driver in the container is told, and what it answers: `plan.json`, `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

__all__ = ["CONTROL_FILES", "DriverResult", "Plan"]

CONTROL_FILES: Final = {
    "plan": "plan.json",
    "console": "console.log",
    "events": "events.jsonl",
    "result": "result.json",
}
"""Names inside the control directory, `builds/<build-id>/`, mounted at `/smidr/control`."""


@dataclass(frozen=True)
class Plan:
    """Everything the driver needs; paths are container paths."""

    build_id: str
    targets: tuple[str, ...]
    bitbake: str
    """Folder that holds `bin/bitbake`."""
    init_script: str | None
    """`oe-init-build-env`, sourced when given."""
    topdir: str = "/smidr/build"
    phases: tuple[str, ...] = ("build",)
    """Any of `fetch`, `build`, in this order."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables set for BitBake."""
    passthrough: tuple[str, ...] = ()
    """Names of `environment` that BitBake must hand on to recipes."""
    interrupt_grace_s: float = 60.0
    """After the first interrupt, wait so long for running tasks; then interrupt again."""
    kill_grace_s: float = 15.0
    """After the second interrupt, wait so long; then kill."""
    time_limit_s: float | None = None
    """Stop BitBake cleanly after so many seconds, also when no agent watches."""
    relay: tuple[str, int] | None = None
    """A unix socket, and the loopback port by which BitBake shall reach it."""

    def to_json(self) -> str:
        """The text of `plan.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class DriverResult:
    """What `result.json` says; written by rename as the driver's last act."""

    exit_code: int
    """BitBake's exit code of the last phase that ran."""
    phase: str
    """The last phase that ran."""
    interrupted: bool = False
    """A signal or the time limit stopped it."""
    timed_out: bool = False
    """The time limit did."""
    oom_kills: int = 0
    """Processes of the container that the kernel killed for memory."""
    error: str = ""
    """What kept BitBake from being started, if anything."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DriverResult:
        """Take only what is known and of the right type: a recipe could have written the file."""
        fields: dict[str, Any] = {}
        for name, kind in _TYPES.items():
            value = raw.get(name)
            if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
                fields[name] = value
        return cls(**{"exit_code": 1, "phase": "build", **fields})


_TYPES: Final[Mapping[str, type]] = {
    "exit_code": int,
    "phase": str,
    "interrupted": bool,
    "timed_out": bool,
    "oom_kills": int,
    "error": str,
}
