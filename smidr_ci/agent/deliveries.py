"""The rows of the outbox: what waits for whom, in the store's database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from smidr_ci.builds.database import Database
from smidr_ci.builds.tables import outbox
from smidr_ci.clock import Clock

__all__ = ["DeliveryStore", "Head", "StoredDelivery", "Tally"]

_ERROR_LIMIT: Final = 1000


WAITING: Final = "waiting"
SENDING: Final = "sending"
"""A try was begun and its end is not known yet."""
DELIVERED: Final = "delivered"
SUPERSEDED: Final = "superseded"
GIVEN_UP: Final = "given-up"
_OPEN: Final = (WAITING, SENDING)
_DONE: Final = (DELIVERED, SUPERSEDED)
_TELLING: Final = (GIVEN_UP, WAITING, SENDING)
"""Whose error is shown: the last of these that a receiver has."""


@dataclass(frozen=True)
class Head:
    """What a receiver gets next."""

    receiver: str
    due: datetime
    attempts: int


@dataclass(frozen=True)
class StoredDelivery:
    """A row whose try was begun; `attempts` counts that try too."""

    seq: int
    receiver: str
    key: str
    kind: str
    payload: Mapping[str, Any]
    build_id: str | None
    created: datetime
    attempts: int


@dataclass(frozen=True)
class Tally:
    """Numbers of one receiver; `last_error` is of the next delivery, else of one given up."""

    receiver: str
    waiting: int = 0
    given_up: int = 0
    last_error: str = ""


class DeliveryStore:
    """Each method is one transaction; all raise `HostError` when the database can't be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        receiver: str,
        key: str,
        kind: str,
        payload: Mapping[str, Any],
        *,
        build_id: str | None,
        supersedes: bool,
    ) -> bool:
        """Store a delivery that is due now; False when the receiver had the key before."""
        now = self._clock.now()
        row = {
            "receiver": receiver,
            "key": key,
            "kind": kind,
            "payload": dict(payload),
            "build_id": build_id,
            "created": now,
            "due": now,
            "state": WAITING,
            "attempts": 0,
            "last_error": "",
        }
        same = select(outbox.c.seq).where(outbox.c.receiver == receiver, outbox.c.key == key)
        with self._database.writing() as connection:
            if connection.execute(same).first() is not None:
                return False
            if supersedes:
                self._supersede(connection, receiver, kind, key)
            connection.execute(insert(outbox).values(row))
        return True

    def _supersede(self, connection: Connection, receiver: str, kind: str, key: str) -> None:
        older = update(outbox).where(
            outbox.c.state == WAITING,
            outbox.c.receiver == receiver,
            outbox.c.kind == kind,
        )
        end = {"state": SUPERSEDED, "ended": self._clock.now()}
        connection.execute(older.values(**end, last_error=f"superseded by {key}"))

    def recover(self) -> None:
        """Let tries that a crash cut short wait again; only for who starts, before any `begin`."""
        cut_short = update(outbox).where(outbox.c.state == SENDING)
        with self._database.writing() as connection:
            connection.execute(cut_short.values(state=WAITING))

    def heads(self) -> Sequence[Head]:
        """What each receiver gets next, the longest waiting first."""
        first = (
            select(func.min(outbox.c.seq).label("seq"))
            .where(outbox.c.state == WAITING)
            .group_by(outbox.c.receiver)
            .subquery()
        )
        query = select(outbox.c.receiver, outbox.c.due, outbox.c.attempts)
        query = query.join(first, first.c.seq == outbox.c.seq).order_by(outbox.c.seq)
        with self._database.reading() as connection:
            return [Head(*row) for row in connection.execute(query)]

    def begin(self, receiver: str) -> StoredDelivery | None:
        """Mark the receiver's next delivery as being sent; None when nothing waits."""
        with self._database.writing() as connection:
            row = connection.execute(next_for(receiver)).first()
            if row is None:
                return None
            attempts = row.attempts + 1
            begun = update(outbox).where(outbox.c.seq == row.seq)
            connection.execute(begun.values(state=SENDING, attempts=attempts))
        return StoredDelivery(
            seq=row.seq,
            receiver=receiver,
            key=row.key,
            kind=row.kind,
            payload=row.payload,
            build_id=row.build_id,
            created=row.created,
            attempts=attempts,
        )

    def delivered(self, seq: int) -> None:
        """It has arrived."""
        self._set(seq, state=DELIVERED, ended=self._clock.now(), last_error="")

    def postpone(self, seq: int, due: datetime, error: str) -> None:
        """It has not; try again then."""
        state = WAITING
        self._set(seq, state=state, due=due, last_error=error[:_ERROR_LIMIT])

    def give_up(self, seq: int, error: str) -> None:
        """It never will."""
        end = {"state": GIVEN_UP, "ended": self._clock.now()}
        self._set(seq, **end, last_error=error[:_ERROR_LIMIT])

    def give_up_before(self, receiver: str, created: datetime, error: str) -> int:
        """Give up all that has waited for the receiver since before a time; say how many."""
        old = update(outbox).where(
            outbox.c.state == WAITING,
            outbox.c.receiver == receiver,
            outbox.c.created < created,
        )
        end = {"state": GIVEN_UP, "ended": self._clock.now()}
        with self._database.writing() as connection:
            return connection.execute(old.values(**end, last_error=error[:_ERROR_LIMIT])).rowcount

    def tallies(self) -> Sequence[Tally]:
        """Numbers of each receiver for whom something waits or was given up, by name."""
        first, last = func.min(outbox.c.seq), func.max(outbox.c.seq)
        query = select(outbox.c.state, outbox.c.receiver, func.count(), first, last)
        query = query.where(outbox.c.state.in_(_TELLING))
        query = query.group_by(outbox.c.state, outbox.c.receiver)
        waiting, given_up, told_by = dict[str, int](), dict[str, int](), dict[str, int]()
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            for state, receiver, count, oldest, newest in sorted(rows, key=_by_telling):
                numbers = given_up if state == GIVEN_UP else waiting
                numbers[receiver] = numbers.get(receiver, 0) + count
                told_by[receiver] = newest if state == GIVEN_UP else oldest
            errors = _errors_of(connection, list(told_by.values()))
        return [
            Tally(name, waiting.get(name, 0), given_up.get(name, 0), errors.get(seq, ""))
            for name, seq in sorted(told_by.items())
        ]

    def open_builds(self) -> frozenset[str]:
        """Builds of which something has not gone out yet."""
        query = select(outbox.c.build_id).distinct()
        query = query.where(outbox.c.state.in_(_OPEN), outbox.c.build_id.is_not(None))
        with self._database.reading() as connection:
            return frozenset(connection.execute(query).scalars())

    def trim(self, done_before: datetime, given_up_before: datetime) -> int:
        """Forget what went out, and what was given up, before these times; say how many."""
        gone = 0
        with self._database.writing() as connection:
            for states, before in (
                (_DONE, done_before),
                ((GIVEN_UP,), given_up_before),
            ):
                old = delete(outbox).where(outbox.c.ended < before, outbox.c.state.in_(states))
                gone += connection.execute(old).rowcount
        return gone

    def _set(self, seq: int, **values: object) -> None:
        with self._database.writing() as connection:
            connection.execute(update(outbox).where(outbox.c.seq == seq).values(**values))


def next_for(receiver: str) -> Select[Any]:
    """The query for what a receiver gets next."""
    waiting = outbox.c.state == WAITING
    query = select(outbox).where(waiting, outbox.c.receiver == receiver)
    return query.order_by(outbox.c.seq).limit(1)


def _by_telling(row: Row[tuple[str, str, int, int, int]]) -> int:
    return _TELLING.index(row[0])


def _errors_of(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    errors: dict[int, str] = {}
    for begin in range(0, len(numbers), 500):  # a query takes a limited number of values
        some = numbers[begin : begin + 500]
        query = select(outbox.c.seq, outbox.c.last_error).where(outbox.c.seq.in_(some))
        errors.update((row.seq, row.last_error) for row in connection.execute(query))
    return errors
