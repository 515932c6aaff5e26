"""How many runners a registration may have now: its limit, the host's slots, disk and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smidr_ci.forges.github.runners.ports import Room, Runners
from smidr_ci.forges.seats import Capacity

__all__ = ["RoomKeeper"]

_MOST: Final = 64
"""Free places that are counted at all; a host builds far fewer things at once."""


class RoomKeeper:
    """`limit` is the registration's own, 0 for none; thread-safe."""

    def __init__(
        self, name: str, runners: Runners, seats: Capacity, limit: Callable[[], int]
    ) -> None:
        self._name = name
        self._runners = runners
        self._seats = seats
        self._limit = limit

    def room(self) -> Room:
        """Room for more; the reason is that of whatever leaves the least."""
        found = self._runners.capacity()
        limit = self._limit()
        alive = sum(item.is_alive for item in self._runners.running().values())
        if limit and limit - alive < found.free:
            reason = f"the registration's limit of {limit} is reached"
            found = found._replace(free=max(limit - alive, 0), reason=reason)
        wanted = min(found.free, _MOST)
        free, why = self._free_seats(wanted)
        if free < wanted:
            return Room(free, why, is_short=found.is_short)
        return found._replace(free=wanted)

    def _free_seats(self, wanted: int) -> tuple[int, str]:
        """How many builds could start at once; each runner's job may order one."""
        taken, why = 0, ""
        try:
            while taken < wanted:
                refusal = self._seats.take(self._name)
                if refusal is not None:
                    why = refusal
                    break
                taken += 1
        finally:
            for _ in range(taken):
                self._seats.give_back(self._name)
        return taken, why
