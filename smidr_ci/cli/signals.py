"""Signals of a foreground build: the first asks for a clean stop, the second kills."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from smidr_ci.cancel import CancelLevel, CancelToken

__all__ = ["cancel_on_signals", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def cancel_on_signals(cancel: CancelToken, note: Callable[[str], None]) -> Iterator[None]:
    """While open, Ctrl-C, SIGTERM and SIGHUP end in the token; restores the old handlers."""

    def act(name: str) -> None:
        if cancel.is_cancelled:
            note("Killing the build.")
            cancel.cancel(f"Killed by {name}", CancelLevel.KILL)
        else:
            note("Stopping: running tasks may finish. Press Ctrl-C again to kill them.")
            cancel.cancel(f"Cancelled by {name}")

    def handle(number: int, _frame: FrameType | None) -> None:
        # The token takes a lock that the interrupted main thread may hold.
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        threading.Thread(target=act, args=(name,), daemon=True).start()

    before = [signal.signal(number, handle) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[CancelToken]:
    """The same, without words, for what is not a build."""
    cancel = CancelToken()
    with cancel_on_signals(cancel, lambda _: None):
        yield cancel
