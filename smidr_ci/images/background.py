"""Long calls to the engine that a cancel must be able to leave."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from smidr_ci.clock import Clock
from smidr_ci.images.model import Making, Report
from smidr_ci.text import printable

__all__ = ["Steady", "run_cancellable"]

T = TypeVar("T")
_POLL_S: Final = 0.2
_MAX_LINE: Final = 500


class _AbandonedError(Exception):
    """Nobody waits for this work any more."""


class _Work(Generic[T]):
    """A thread that runs `task`; what the task reports waits in a queue."""

    def __init__(self, task: Callable[[Report], T]) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue(maxsize=1000)
        """What to report; None is the end."""
        self.is_abandoned = False
        self.result: list[T] = []
        self.error: BaseException | None = None
        self._task = task

    def run(self) -> None:
        try:
            self.result.append(self._task(self._report))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises
            self.error = error
        with suppress(_AbandonedError):
            self._report(None)

    def _report(self, line: str | None) -> None:
        while not self.is_abandoned:
            try:
                self.lines.put(line, timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _AbandonedError


def run_cancellable(
    task: Callable[[Report], T], making: Making, on_cancel: Callable[[], None] = lambda: None
) -> T:
    """Run `task` in a thread, its lines reported in this one; its result or its exception.

    On a cancel (or when this thread is interrupted) `on_cancel` runs and `CancelledError` is
    raised at once; the task ends with its next line.
    """
    work = _Work(task)
    threading.Thread(target=work.run, daemon=True).start()
    try:
        while _pass_on(work.lines, making.report):
            if making.cancel is not None:
                making.cancel.raise_if_cancelled()
    except BaseException:
        work.is_abandoned = True
        on_cancel()
        raise
    if work.error is not None:
        raise work.error
    return work.result[0]


def _pass_on(lines: queue.Queue[str | None], report: Report) -> bool:
    """Report the next line if one comes soon; False at the end."""
    with suppress(queue.Empty):
        line = lines.get(timeout=_POLL_S)
        if line is None:
            return False
        report(printable(line)[:_MAX_LINE])
    return True


class Steady:
    """Lets a line through at most every `every_s` seconds, so that progress stays readable."""

    def __init__(self, report: Report, clock: Clock, every_s: float) -> None:
        self._report = report
        self._clock = clock
        self._every_s = every_s
        self._last: float | None = None

    def say(self, line: str) -> None:
        """Report the line when it is time for one."""
        now = self._clock.monotonic()
        if self._last is None or now - self._last >= self._every_s:
            self._last = now
            self._report(line)
