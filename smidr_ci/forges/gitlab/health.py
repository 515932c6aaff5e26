"""How soon to ask for a job again, after answers that say that asking is in vain."""

from __future__ import annotations

import random
from typing import Final

from smidr_ci.forges.gitlab.answers import Poll

__all__ = ["PollHealth"]

UNHEALTHY_AFTER: Final = 3
_FIRST_S: Final = 60.0
_LONGEST_S: Final = 3600.0


class PollHealth:
    """After three refusals in a row polling stops, first for a minute, then longer, up to an hour.

    The official runner waits for an hour at once, for a proxy's hiccup too.
    """

    def __init__(self) -> None:
        self._refusals = 0
        self._wait_s = _FIRST_S
        self.message = ""
        """What the last refusal said; empty while all is well."""

    def heard(self, poll: Poll) -> None:
        """Take an answer into account."""
        if poll.is_healthy:
            self._refusals, self._wait_s, self.message = 0, _FIRST_S, ""
            return
        self._refusals += 1
        self.message = poll.message

    @property
    def is_healthy(self) -> bool:
        """Whether polling goes on at its usual pace."""
        return self._refusals < UNHEALTHY_AFTER

    def wait_s(self, usual_s: float) -> float:
        """Seconds until the next request; longer at each call while it is unhealthy."""
        if self.is_healthy:
            return usual_s
        wait, self._wait_s = self._wait_s, min(self._wait_s * 2, _LONGEST_S)
        return wait * random.uniform(0.9, 1.0)  # noqa: S311 - spreads runners, keeps no secret
