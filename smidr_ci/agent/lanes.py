"""Receivers take turns on few threads: one lane each, one thread at a time per lane.

Threads are there only while a lane can be served, or one to wait for the next that is due.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smidr_ci.clock import Clock
from smidr_ci.errors import InternalError

__all__ = ["Lane", "Lanes"]


@dataclass(eq=False)
class Lane:
    """One receiver's place: queued, busy, or parked because nobody serves it.

    Who serves it sets `due` and `failures`; the rest belongs to `Lanes`.
    """

    receiver: str
    due: float
    """Monotonic seconds; nothing is tried before."""
    failures: int = 0
    """In a row."""
    is_queued: bool = False
    is_busy: bool = False
    has_news: bool = False
    """Something came since it was last looked at."""
    failed_in: int = 0
    """The round of `settle` that saw its last failure."""


class Lanes:
    """`serve` handles the next thing in a lane and says whether there was any; it never raises.

    `is_served` tells whether a receiver's lane can be served; it is called with the lock held.
    """

    def __init__(
        self,
        clock: Clock,
        serve: Callable[[Lane], bool],
        is_served: Callable[[str], bool],
        max_threads: int,
    ) -> None:
        self._clock = clock
        self._serve = serve
        self._is_served = is_served
        self._max_threads = max_threads
        self._lanes: dict[str, Lane] = {}
        self._queue: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()
        self._is_open = False
        self._threads = 0
        self._is_watched = False
        self._round = 0
        lock = threading.RLock()
        self._work = threading.Condition(lock)
        self._change = threading.Condition(lock)

    def open(self, load: Callable[[], Iterable[Lane]]) -> None:
        """Begin to serve; `load` gives the lanes to begin with, and no news come meanwhile."""
        with self._work:
            if self._is_open or self._threads:
                raise InternalError("the outbox runs already")
            for lane in load():
                self._lanes[lane.receiver] = lane
                self._enqueue(lane)
            self._is_open = True
            self._staff()

    def close(self, timeout_s: float) -> bool:
        """Serve no more; False when a lane is still being served after that time."""
        with self._work:
            self._is_open = False
            self._lanes.clear()
            self._queue.clear()
            self._work.notify_all()
            self._change.notify_all()
            return self._change.wait_for(lambda: self._threads == 0, timeout_s)

    def tell(self, receiver: str) -> None:
        """Something came for a receiver; its lane keeps its time when it has one."""
        with self._work:
            if not self._is_open:
                return
            lane = self._lanes.get(receiver)
            if lane is None:
                lane = self._lanes[receiver] = Lane(receiver, self._clock.monotonic())
            lane.has_news = True
            if not lane.is_busy and not lane.is_queued and self._is_served(receiver):
                self._enqueue(lane)
                self._staff()

    def look(self, change: Callable[[], object] = lambda: None) -> None:
        """Make a change of who is served, or of the time, and see what can be done now."""
        with self._work:
            change()
            for lane in self._lanes.values():
                if not lane.is_busy and not lane.is_queued:
                    self._enqueue(lane)
            self._staff()

    def settle(self, timeout_s: float, *, retry: bool) -> bool:
        """Wait until each lane is empty or has failed; whether all are empty.

        With `retry`, lanes that wait for their time get a turn now, and must fail once more. False
        too when the time is up. Lanes that nobody serves don't count.
        """
        with self._work:
            self._round += 1
            number, now = self._round, self._clock.monotonic()
            if retry:
                self._hurry(now)

            def is_settled(lane: Lane) -> bool:
                rests = not retry and not lane.is_busy and lane.due > now
                return rests or lane.failed_in >= number or not self._is_served(lane.receiver)

            self._change.wait_for(
                lambda: not self._is_open or all(map(is_settled, self._lanes.values())), timeout_s
            )
            is_empty = not any(self._is_served(receiver) for receiver in self._lanes)
            return self._is_open and is_empty

    def due(self, receiver: str) -> float | None:
        """Seconds until its next turn; None when it has one now, or nobody serves it."""
        with self._work:
            lane = self._lanes.get(receiver)
            if lane is None or not lane.is_queued or not self._is_served(receiver):
                return None
            return max(lane.due - self._clock.monotonic(), 0.0)

    def parked(self) -> list[str]:
        """Receivers that nobody serves."""
        with self._work:
            return [receiver for receiver in self._lanes if not self._is_served(receiver)]

    # What follows, up to `_run`, needs the lock.

    def _enqueue(self, lane: Lane) -> None:
        lane.is_queued = True
        heapq.heappush(self._queue, (lane.due, next(self._numbers), lane))

    def _hurry(self, now: float) -> None:
        for lane in self._lanes.values():
            if not lane.is_busy:
                lane.due = min(lane.due, now)
        self._queue = [(lane.due, order, lane) for _, order, lane in self._queue]
        heapq.heapify(self._queue)
        self._staff()

    def _staff(self) -> None:
        """See to it that a thread looks at the queue."""
        if not self._queue or not self._is_open:
            return
        if self._is_watched:
            self._work.notify()
        elif self._threads < self._max_threads:
            self._threads += 1
            # A daemon: who hangs while serving must not keep the process from ending.
            threading.Thread(target=self._run, name="outbox", daemon=True).start()

    def _pop_due(self) -> Lane | None:
        while self._queue and self._queue[0][0] <= self._clock.monotonic():
            _, _, lane = heapq.heappop(self._queue)
            lane.is_queued = False
            if self._is_served(lane.receiver):
                lane.is_busy, lane.has_news = True, False
                return lane
        return None

    def _next(self) -> Lane | None:
        """Wait for a lane that is due; None when another thread waits, or none is to come."""
        while self._is_open:
            lane = self._pop_due()
            if lane is not None:
                self._staff()  # somebody must look at the others meanwhile
                return lane
            if self._is_watched or not self._queue:
                break
            self._is_watched = True
            self._work.wait(max(self._queue[0][0] - self._clock.monotonic(), 0.0))
            self._is_watched = False
        return None

    def _leave(self, lane: Lane, *, is_empty: bool) -> None:
        lane.is_busy = False
        if self._lanes.get(lane.receiver) is not lane:
            return  # closed meanwhile
        if is_empty and not lane.has_news:
            del self._lanes[lane.receiver]
        else:
            self._enqueue(lane)
        if lane.failures:
            lane.failed_in = self._round
        self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._work:
                lane = self._next()
                if lane is None:
                    self._threads -= 1
                    self._change.notify_all()
                    return
            is_empty = not self._serve(lane)
            with self._work:
                self._leave(lane, is_empty=is_empty)
