"""How long a client tries to come back to an agent that it has lost."""

from __future__ import annotations

from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError

__all__ = ["Patience"]

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 3.0


class Patience:
    """Waits before each new try, longer each time, until `limit_s` went by without success."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._lost_at: float | None = None
        self._pause_s = _FIRST_S
        self._has_succeeded = False

    def succeeded(self) -> None:
        """Something came: begin anew."""
        self._has_succeeded = True
        self._lost_at = None
        self._pause_s = _FIRST_S

    def wait_after(self, error: SmidrError) -> None:
        """Wait, then return for another try; raise the error when it is time to give up.

        Whoever was never there is not waited for.
        """
        now = self._clock.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if not self._has_succeeded or now - self._lost_at >= self._limit_s:
            raise error
        self._clock.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 1.6, _LONGEST_S)
