"""Room for jobs: a seat is taken before a job is asked for, so no job comes that could not start.

Several registrations share a host's seats. A server may hold a request for most of a minute, and
with it a seat: where there are more registrations than seats, requests must not be held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from smidr_ci.clock import Clock, SystemClock

__all__ = ["Capacity", "Seats"]

_RIVAL_S: Final = 60.0
_BUSY: Final = "another registration asks for the only free place"


class Capacity(Protocol):
    """What a registration asks before it asks its forge. All calls may come from any thread."""

    def take(self, name: str) -> str | None:
        """Reserve room for one job; else why there is none, as a sentence."""

    def give_back(self, name: str) -> None:
        """No job came, or its job counts by itself from now on."""

    @property
    def is_scarce(self) -> bool:
        """Whether others wait for what this one holds: ask for an answer at once then."""


class Seats:
    """Implements `Capacity` for all registrations of a host.

    `refusal` says why a build could not start at once when so many others come before it, None if
    it could; `expected` counts jobs that were taken and have no build yet.
    """

    def __init__(
        self,
        refusal: Callable[[int], str | None],
        expected: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
    ) -> None:
        self._refusal = refusal
        self._expected = expected
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._held: list[str] = []
        self._asked: dict[str, float] = {}

    def take(self, name: str) -> str | None:
        """See `Capacity`."""
        with self._lock:
            self._asked[name] = self._clock.monotonic()
            expected = self._expected()
            why = self._refusal(expected + len(self._held))
            if why is None:
                self._held.append(name)
                return None
            is_only_held = self._held and self._refusal(expected) is None
            return _BUSY if is_only_held else why

    def give_back(self, name: str) -> None:
        """See `Capacity`."""
        with self._lock:
            if name in self._held:
                self._held.remove(name)

    @property
    def is_scarce(self) -> bool:
        """See `Capacity`."""
        with self._lock:
            since = self._clock.monotonic() - _RIVAL_S
            rivals = sum(asked >= since for asked in self._asked.values())
            return rivals > 1 and self._refusal(self._expected() + rivals - 1) is not None
