"""When to try again: after refusals, and after runners that ended without a job."""

from __future__ import annotations

import random
from typing import Final

from smidr_ci.clock import Clock

__all__ = ["Backoff"]

_SPREAD: Final = 0.1


class Backoff:
    """Longer after each failure in a row; for one thread, but may be read from others."""

    def __init__(self, clock: Clock, first_s: float, longest_s: float) -> None:
        self._clock = clock
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0
        self._until = 0.0
        self.why = ""
        """What failed last; empty while all is well."""

    def failed(self, why: str, at_least_s: float = 0.0) -> float:
        """Something went wrong once more; how many seconds to wait."""
        wait = min(self._first_s * 2.0 ** min(self._failures, 20), self._longest_s)
        # Spread upwards: many hosts would come back at the same moment, and none too early.
        wait = max(wait, at_least_s) * (1 + random.uniform(0, _SPREAD))  # noqa: S311 - no secret
        self._failures += 1
        self._until = max(self._until, self._clock.monotonic() + wait)
        self.why = why
        return wait

    def worked(self) -> None:
        """All is well again."""
        self._failures, self._until, self.why = 0, 0.0, ""

    @property
    def wait_s(self) -> float:
        """Seconds until the next try; 0 when it may be made now."""
        return max(self._until - self._clock.monotonic(), 0.0)
