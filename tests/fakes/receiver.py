"""Somebody else, to whom things are delivered: takes them, refuses, or keeps them waiting."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from smidr_ci.forges.deliveries import Delivery

__all__ = ["FakeReceiver"]

_TIMEOUT_S = 30.0


@dataclass
class FakeReceiver:
    """Implements `Deliverer`; takes everything unless an answer was prepared."""

    answers: dict[str, deque[Callable[[Delivery], object]]] = field(default_factory=dict)
    """Per receiver, what its next tries come to: called with the delivery, may raise."""
    arrived: list[tuple[str, str]] = field(default_factory=list)
    """Receiver and key, in the order of arrival."""
    tries: list[Delivery] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _change: threading.Condition = field(default_factory=threading.Condition)

    def prepare(self, receiver: str, *answers: Callable[[Delivery], object] | Exception) -> None:
        """What the next tries for this receiver come to; an exception is raised."""
        made = [_raising(item) if isinstance(item, Exception) else item for item in answers]
        self.answers.setdefault(receiver, deque()).extend(made)

    def deliver(self, delivery: Delivery) -> None:
        """Take it, or do what was prepared."""
        with self._change:
            self.tries.append(delivery)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            waiting = self.answers.get(delivery.receiver)
            answer = waiting.popleft() if waiting else None
            self._change.notify_all()
        try:
            if answer is not None:
                answer(delivery)
            with self._change:
                self.arrived.append((delivery.receiver, delivery.key))
        finally:
            with self._change:
                self._now -= 1
                self._change.notify_all()

    def keys(self, receiver: str) -> list[str]:
        """What arrived there."""
        with self._change:
            return [key for name, key in self.arrived if name == receiver]

    def wait_for_tries(self, count: int) -> None:
        """Until so many tries were begun."""
        self._wait(lambda: len(self.tries) >= count, f"{count} tries")

    def wait_for_arrivals(self, count: int) -> None:
        """Until so many deliveries have arrived."""
        self._wait(lambda: len(self.arrived) >= count, f"{count} arrivals")

    def _wait(self, is_true: Callable[[], bool], what: str) -> None:
        with self._change:
            seen = self._change.wait_for(is_true, _TIMEOUT_S)
            assert seen, f"waited for {what}; arrived: {self.arrived}, tries: {len(self.tries)}"


def _raising(error: Exception) -> Callable[[Delivery], object]:
    def answer(_: Delivery) -> object:
        raise error

    return answer
