"""How many requests for jobs one registration has under way: one, and more while jobs come."""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["Pace"]

_MOST: Final = 100


class Pace:
    """Each job that comes allows one request more beside it, up to `most`; an empty answer ends it.

    So an idle registration asks as seldom as one without this. Thread-safe.
    """

    def __init__(self, most: object = 1) -> None:
        """What a registration's file holds may be anything; what is no number is one."""
        is_number = isinstance(most, int) and not isinstance(most, bool)
        self.most = max(1, min(int(most), _MOST)) if is_number else 1  # type: ignore[call-overload]  # checked
        self._lock = threading.Lock()
        self._allowed = 1

    def may_ask(self, number: int) -> bool:
        """Whether the poller with this number, from 0, may ask now."""
        return number < self._allowed

    def heard(self, *, is_job: bool) -> None:
        """Take an answer into account."""
        with self._lock:
            self._allowed = min(self._allowed + 1, self.most) if is_job else 1
