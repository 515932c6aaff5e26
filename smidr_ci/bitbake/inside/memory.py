"""How many processes of this container the kernel has killed for want of memory."""

from __future__ import annotations

import re

from .control import read_small

__all__ = ["oom_kills"]

# cgroup v2, then v1 (Linux: admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def oom_kills(counters: tuple[str, ...] = _COUNTERS) -> int:
    """The counter's value; 0 where no cgroup tells."""
    for path in counters:
        found = re.search(r"^oom_kill (\d+)$", read_small(path) or "", re.MULTILINE)
        if found:
            return int(found[1])
    return 0
