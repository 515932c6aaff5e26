"""What idle moments are for: old history, delivered messages, caches before the disk is full."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import SmidrError

__all__ = ["Chore", "Housekeeper"]

_log = logging.getLogger(__name__)

_FIRST_S: Final = 300.0
_DAILY_S: Final = 24 * 3600.0
_SHORT_S: Final = 600.0
_AFTER_BUILD_S: Final = 30.0

Chore = Callable[[], object]
"""One kind of cleaning; may take its time, and may raise `SmidrError`."""


class Housekeeper:
    """Does its chores one after the other: after a while, some time after builds, and every day.

    Builds that end together are followed by one round. A chore that fails is tried again next time.
    """

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        first_s: float = _FIRST_S,
        after_build_s: float = _AFTER_BUILD_S,
        daily_s: float = _DAILY_S,
        clock: Clock | None = None,
    ) -> None:
        self._chores = chores
        self._first_s = first_s
        self._after_build_s = after_build_s
        self._daily_s = daily_s
        self._clock = clock or SystemClock()
        self._hurried = float("-inf")
        self._wanted = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin in a thread of its own."""
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def stop(self) -> None:
        """Begin no chore any more; the one that runs goes on."""
        self._ended.set()
        self._wanted.set()

    def build_ended(self, _record: BuildRecord) -> None:
        """There may be something to clean."""
        self._wanted.set()

    def host_is_short(self) -> None:
        """Builds wait for room: clean soon, but not again within ten minutes."""
        now = self._clock.monotonic()
        if now - self._hurried >= _SHORT_S:
            self._hurried = now
            self._wanted.set()

    def _run(self) -> None:
        pause_s = self._first_s
        while not self._ended.is_set():
            if self._wanted.wait(pause_s):
                self._ended.wait(self._after_build_s)
            self._wanted.clear()
            for chore in self._chores:
                self._do(chore)
            pause_s = self._daily_s

    def _do(self, chore: Chore) -> None:
        if self._ended.is_set():
            return
        try:
            chore()
        except SmidrError as error:
            _log.warning("housekeeping: %s", error)
        except Exception:  # noqa: BLE001 - the other chores are done all the same
            _log.exception("housekeeping stumbled")
