"""Whatever must reach somebody else: stored first, then delivered with patience, in order.

A failing delivery blocks its receiver and no other. Only one process may run the outbox of a
database.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from smidr_ci.agent.deliveries import (
    DELIVERED,
    GIVEN_UP,
    WAITING,
    DeliveryStore,
    StoredDelivery,
    Tally,
)
from smidr_ci.agent.lanes import Lane, Lanes
from smidr_ci.agent.status import OutboxStatus
from smidr_ci.builds.database import Database
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock
from smidr_ci.errors import InternalError, SmidrError
from smidr_ci.forges.deliveries import Deliverer, Delivery, GiveUp, RetryLater
from smidr_ci.text import printable

__all__ = ["Outbox", "Patience"]

_log = logging.getLogger(__name__)
_LIMITS: Final = {"receiver": 255, "key": 255, "kind": 64}
_PAYLOAD_BYTES: Final = 256 * 1024
_LONGEST_WISH_S: Final = 3600.0
_NOBODY: Final = "nobody is registered for this receiver"


@dataclass(frozen=True)
class Patience:
    """How long deliveries are tried, and how long they are remembered afterwards."""

    first_pause_s: float = 1.0
    """After a first failure; each further one doubles it."""
    longest_pause_s: float = 300.0
    max_attempts: int = 2000
    max_age: timedelta = timedelta(days=3)
    """What is older is given up when its receiver fails once more, tried itself or not."""
    keep_done: timedelta = timedelta(days=7)
    """So long a repeated `put` is known to be one."""
    keep_given_up: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class _Outcome:
    """How a try ended: what the delivery is now, and how long its receiver is left alone."""

    tried: StoredDelivery
    state: str
    error: str = ""
    pause_s: float = 0.0


class Outbox:
    """Implements `forges.deliveries.Outgoing`. All methods may be called from any thread.

    What is put before `start` waits for it. `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        patience: Patience | None = None,
        *,
        max_threads: int = 8,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = DeliveryStore(database, clock)
        self._clock = clock
        self._patience = patience or Patience()
        self._jitter = jitter
        self._deliverers: dict[str, Deliverer] = {}
        self._lanes = Lanes(clock, self._serve, self._is_served, max_threads)
        self._unsaved: dict[str, _Outcome] = {}
        """What the database could not take: stored before the receiver gets anything else."""
        self._cancel = CancelToken()

    def register(self, prefix: str, deliverer: Deliverer) -> None:
        """Have receivers whose names begin so served; the longest prefix counts."""

        def add() -> None:
            self._deliverers = {**self._deliverers, prefix: deliverer}

        self._lanes.look(add)

    def unregister(self, prefix: str) -> None:
        """Let them wait again, from the next delivery on."""

        def remove() -> None:
            self._deliverers = {
                known: deliverer for known, deliverer in self._deliverers.items() if known != prefix
            }

        self._lanes.look(remove)

    def put(
        self,
        receiver: str,
        key: str,
        kind: str,
        payload: Mapping[str, Any],
        *,
        build_id: str | None = None,
        supersedes: bool = False,
    ) -> bool:
        """See `Outgoing.put`.

        `InternalError` for what can't be stored, `HostError` when the database can't be used.
        """
        _check(payload, receiver=receiver, key=key, kind=kind)
        is_new = self._store.add(
            receiver, key, kind, payload, build_id=build_id, supersedes=supersedes
        )
        if is_new:
            self._lanes.tell(receiver)
        return is_new

    def start(self) -> None:
        """Begin to deliver, with what an earlier process left first."""
        self._lanes.open(self._load)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End deliveries, whose cancel tokens are raised; False when one did not end in time.

        What was not delivered goes out after the next start.
        """
        self._cancel.cancel("The agent stops.")
        return self._lanes.close(timeout_s)

    def flush(self, timeout_s: float, *, retry: bool = True) -> bool:
        """Wait until all that can be delivered is; False when something registered is left.

        Whoever waits for a next try gets one now, unless `retry` is off. It returns as soon as
        all that is left has failed.
        """
        return self._lanes.settle(timeout_s, retry=retry)

    def wake(self) -> None:
        """Look at the clock again: it was moved."""
        self._lanes.look()

    def status(self) -> tuple[OutboxStatus, ...]:
        """Each receiver for whom something waits or was given up."""
        return tuple(self._status_of(tally) for tally in self._store.tallies())

    def open_builds(self) -> frozenset[str]:
        """Builds of which something has not gone out yet: their files are still needed."""
        return self._store.open_builds()

    def trim(self) -> int:
        """Forget old deliveries that are over, and say how many; for once a day.

        Gives up what has grown too old for a receiver that nobody is registered for.
        """
        now = self._clock.now()
        for receiver in self._lanes.parked():
            self._store.give_up_before(receiver, now - self._patience.max_age, _NOBODY)
        return self._store.trim(now - self._patience.keep_done, now - self._patience.keep_given_up)

    def _load(self) -> Iterator[Lane]:
        self._store.recover()
        self._cancel = CancelToken()
        self._unsaved.clear()
        now, wall = self._clock.monotonic(), self._clock.now()
        for head in self._store.heads():
            # A clock that was set back must not hold anything for longer than a pause.
            wait_s = min((head.due - wall).total_seconds(), _LONGEST_WISH_S)
            yield Lane(head.receiver, now + max(wait_s, 0.0), head.attempts)

    def _status_of(self, tally: Tally) -> OutboxStatus:
        due_s = self._lanes.due(tally.receiver)
        next_try = None if due_s is None else self._clock.now() + timedelta(seconds=due_s)
        is_orphan = tally.waiting and not self._is_served(tally.receiver)
        error = _NOBODY if is_orphan else tally.last_error
        return OutboxStatus(tally.receiver, tally.waiting, tally.given_up, error, next_try)

    def _deliverer(self, receiver: str) -> Deliverer | None:
        known = self._deliverers
        fitting = [prefix for prefix in known if receiver.startswith(prefix)]
        return known[max(fitting, key=len)] if fitting else None

    def _is_served(self, receiver: str) -> bool:
        return self._deliverer(receiver) is not None

    def _serve(self, lane: Lane) -> bool:
        deliverer = self._deliverer(lane.receiver)
        if deliverer is None:
            return True  # unregistered just now: the lane is parked at its next turn
        try:
            outcome = self._unsaved.get(lane.receiver)
            if outcome is None:
                tried = self._store.begin(lane.receiver)
                if tried is None:
                    return False
                outcome = self._unsaved[lane.receiver] = self._deliver(lane, tried, deliverer)
            self._save(lane, outcome)
            self._unsaved.pop(lane.receiver, None)
        except Exception as error:  # noqa: BLE001 - or nothing would go to this receiver again
            # Not its fault but the database's; what went out is not sent again.
            is_known = isinstance(error, SmidrError)
            _log.error("can't store how far %s is: %s", lane.receiver, error, exc_info=not is_known)
            lane.failures += 1
            lane.due = self._clock.monotonic() + self._pause(lane.failures)
        return True

    def _deliver(self, lane: Lane, tried: StoredDelivery, deliverer: Deliverer) -> _Outcome:
        delivery = Delivery(
            receiver=tried.receiver,
            key=tried.key,
            kind=tried.kind,
            payload=tried.payload,
            build_id=tried.build_id,
            created=tried.created,
            attempt=tried.attempts,
            cancel=self._cancel,
        )
        try:
            deliverer.deliver(delivery)
        except GiveUp as error:
            return _Outcome(tried, GIVEN_UP, _text(error))
        except RetryLater as error:
            return self._again(lane, tried, _text(error), error.after_s)
        except SmidrError as error:
            return self._again(lane, tried, _text(error))
        except Exception as error:  # noqa: BLE001 - a faulty deliverer must not end the thread
            _log.exception("can't deliver %s to %s", tried.key, tried.receiver)
            return self._again(lane, tried, printable(f"{type(error).__name__}: {error}"))
        return _Outcome(tried, DELIVERED)

    def _again(
        self, lane: Lane, tried: StoredDelivery, error: str, wish_s: float | None = None
    ) -> _Outcome:
        lane.failures += 1
        pause_s = self._pause(lane.failures, wish_s)
        age = self._clock.now() - tried.created
        if tried.attempts < self._patience.max_attempts and age <= self._patience.max_age:
            return _Outcome(tried, WAITING, error, pause_s)
        spent = f"given up after {tried.attempts} tries in {age.total_seconds() / 3600:.0f} h"
        return _Outcome(tried, GIVEN_UP, f"{spent}: {error}", pause_s)

    def _pause(self, failures: int, wish_s: float | None = None) -> float:
        spread = self._jitter()
        if wish_s is not None:
            return min(max(wish_s, 0.0), _LONGEST_WISH_S) + spread * self._patience.first_pause_s
        doubled = self._patience.first_pause_s * 2.0 ** min(failures - 1, 30)
        return min(doubled, self._patience.longest_pause_s) * (0.5 + 0.5 * spread)

    def _save(self, lane: Lane, outcome: _Outcome) -> None:
        seq, now = outcome.tried.seq, self._clock.now()
        if outcome.state == DELIVERED:
            self._store.delivered(seq)
        elif outcome.state == GIVEN_UP:
            _log.warning("gave up a delivery to %s: %s", outcome.tried.receiver, outcome.error)
            self._store.give_up(seq, outcome.error)
        else:
            self._store.postpone(seq, now + timedelta(seconds=outcome.pause_s), outcome.error)
        if outcome.pause_s:
            too_old = now - self._patience.max_age
            self._store.give_up_before(lane.receiver, too_old, f"too old: {outcome.error}")
        else:
            lane.failures = 0
        lane.due = self._clock.monotonic() + outcome.pause_s


def _text(error: SmidrError) -> str:
    return printable(f"{error.where}: {error.message}" if error.where else error.message)


def _check(payload: Mapping[str, Any], **names: str) -> None:
    for name, text in names.items():
        if not 0 < len(text) <= _LIMITS[name]:
            raise InternalError(f"a delivery's {name} has {len(text)} characters: {text[:80]!r}")
    try:
        size = len(json.dumps(dict(payload), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InternalError(f"a delivery's payload is no JSON: {error}") from error
    if size > _PAYLOAD_BYTES:
        raise InternalError(f"a delivery's payload has {size} bytes, of {_PAYLOAD_BYTES} at most")
