"""How many runners there are on this host, whoever their registration is."""

from __future__ import annotations

import threading

__all__ = ["Slots"]


class Slots:
    """Counts; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used = 0

    @property
    def used(self) -> int:
        """Runners that are alive."""
        return self._used

    def take(self, total: int) -> bool:
        """One more, unless there are so many already."""
        with self._lock:
            if self._used >= total:
                return False
            self._used += 1
            return True

    def force(self) -> None:
        """One that is there, however many may be."""
        with self._lock:
            self._used += 1

    def give_back(self) -> None:
        """One is gone."""
        with self._lock:
            self._used = max(self._used - 1, 0)
