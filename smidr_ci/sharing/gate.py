"""Keeps a store that does not answer from holding up who asks: builds are to go on without it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.stores.model import MissingObjectError, StoreError

__all__ = ["AwayError", "Gate"]

_PATIENCE_S: Final = 15.0
_AWAY_S: Final = 30.0
_FORGET_S: Final = 900.0

Answer = TypeVar("Answer")


class AwayError(StoreError):
    """The store did not answer, and is not asked for a while."""


class Gate:
    """After a failure nothing is asked for a while, then one call tries it. Thread-safe."""

    def __init__(
        self, clock: Clock, *, patience_s: float = _PATIENCE_S, away_s: float = _AWAY_S
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._away_s = away_s
        self._lock = threading.Lock()
        self._away_until = float("-inf")
        self._is_away = False
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why it was not there a short while ago; empty when it answered, or nobody asked since."""
        with self._lock:
            is_news = self._clock.monotonic() < self._away_until + _FORGET_S
            return self._problem if self._is_away and is_news else ""

    def ask(self, call: Callable[[], Answer], dispose: Callable[[Answer], object]) -> Answer:
        """What the call returns; an answer that comes too late goes to `dispose`.

        Raises `AwayError` at once while the store is away, and `MissingObjectError`.
        """
        self._enter()
        task = _Task(call, dispose)
        # A thread of its own: nobody can end a call to a file system that hangs.
        threading.Thread(target=task.run, name="share-ask", daemon=True).start()
        if not task.wait(self._patience_s):
            raise self._failed(f"no answer within {self._patience_s:g} s")
        error = task.error
        if error is None or isinstance(error, MissingObjectError):
            self._answered()
        if error is None:
            answer: Answer = task.answer
            return answer
        if isinstance(error, MissingObjectError) or not isinstance(error, SmidrError | OSError):
            raise error
        raise self._failed(str(error)) from error

    def _enter(self) -> None:
        with self._lock:
            if not self._is_away:
                return
            now = self._clock.monotonic()
            if now < self._away_until:
                raise AwayError(self._problem)
            self._away_until = now + self._away_s  # for all but this one

    def _answered(self) -> None:
        with self._lock:
            self._is_away, self._problem = False, ""

    def _failed(self, problem: str) -> AwayError:
        with self._lock:
            self._is_away, self._problem = True, problem
            self._away_until = self._clock.monotonic() + self._away_s
        return AwayError(problem)


class _Task:
    def __init__(self, call: Callable[[], Any], dispose: Callable[[Any], object]) -> None:
        self._call = call
        self._dispose = dispose
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._is_given_up = False
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            answer = self._call()
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            self.error = error
            self._is_over.set()
            return
        with self._lock:
            self.answer = answer
            is_late = self._is_given_up
            self._is_over.set()
        if is_late:
            self._dispose(answer)

    def wait(self, seconds: float) -> bool:
        if self._is_over.wait(seconds):
            return True
        with self._lock:
            self._is_given_up = not self._is_over.is_set()
            return not self._is_given_up
