"""What the runners of an agent share, whatever their forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smidr_ci.builds.host import Host
from smidr_ci.builds.service import BuildService
from smidr_ci.forges.deliveries import Outgoing
from smidr_ci.forges.seats import Capacity

__all__ = ["Parts"]


@dataclass(frozen=True)
class Parts:
    """Given to the assembly of each forge."""

    host: Callable[[], Host]
    """With the newest settings."""
    builds: BuildService
    outgoing: Outgoing
    capacity: Capacity
    on_call: Callable[[str, str, str], None] | None = None
    """Hears of each call: which forge, what, and how it ended."""
