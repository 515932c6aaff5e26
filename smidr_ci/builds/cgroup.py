"""The limits of the container that smidr itself runs in.

Read where a container sees its own cgroup: at the root of what is mounted. A service's limits stand
further down (`system.slice/...`), and are for the agent alone: its builds' containers are children
of the engine.

Linux, admin-guide/cgroup-v2.rst (`cpu.max`, `memory.max`); cgroup-v1/memory.rst and
scheduler/sched-bwc.rst for the files of version 1.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["CGROUP", "cpu_quota", "memory_limit_bytes"]

CGROUP: Final = Path("/sys/fs/cgroup")
"""Where every distribution mounts it."""

_V1_CPU: Final = ("cpu", "cpu,cpuacct")


def cpu_quota(root: Path = CGROUP) -> float | None:
    """How many CPUs' time the container gets; None for no limit."""
    pair = re.fullmatch(r"([0-9]+) ([0-9]+)", _read(root / "cpu.max"))
    if pair:
        return _quotient(int(pair[1]), int(pair[2]))
    for name in _V1_CPU:
        quota = _number(root / name / "cpu.cfs_quota_us")  # -1 is no limit
        period = _number(root / name / "cpu.cfs_period_us")
        if quota is not None and period is not None:
            return _quotient(quota, period)
    return None


def memory_limit_bytes(root: Path = CGROUP) -> int | None:
    """Memory that the container gets; None for no limit. Version 1 says so by a huge number."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        limit = _number(path)
        if limit is not None:
            return limit or None
    return None


def _quotient(quota: int, period: int) -> float | None:
    return quota / period if quota > 0 and period > 0 else None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(256).decode("ascii", errors="replace").strip()
    except OSError:
        return ""
