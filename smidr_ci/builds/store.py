"""History: every build's record, safe from several processes and threads and from `kill -9`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from smidr_ci.builds.database import Database
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.ownership import Ownership
from smidr_ci.builds.tables import builds, details, record_from, values_of
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import (
    ConflictError,
    FailureKind,
    InternalError,
    NotFoundError,
    UsageError,
)
from smidr_ci.home import Home
from smidr_ci.locks import KernelLock

__all__ = ["BuildStore"]

_ORDER: Final = (
    BuildState.QUEUED,
    BuildState.PREPARING,
    BuildState.BUILDING,
    BuildState.EXTRACTING,
)
_NEAREST_AMONG: Final = 500


class BuildStore:
    """The build history in an SQL database, and who owns which build.

    `database` is an SQLite file or any SQLAlchemy URL; `locks` is a directory on the local disk.
    All methods raise `HostError` when the database can't be used.
    """

    def __init__(
        self, database: Path | str, locks: Path | None = None, clock: Clock | None = None
    ) -> None:
        if locks is None and isinstance(database, str):
            raise InternalError("a store at a URL needs a directory for its locks")
        self._clock = clock or SystemClock()
        self._ownership = Ownership(locks or Path(database).parent / "locks", self._clock)
        self._database = Database(database)

    @classmethod
    def at(cls, home: Home) -> BuildStore:
        """The store of one host."""
        return cls(home.database, home.locks)

    @property
    def database(self) -> Database:
        """For what else is kept beside the builds."""
        return self._database

    def close(self) -> None:
        """Close the database; claims stay with their holders."""
        self._database.close()

    def reserve(self, customer: str) -> tuple[str, KernelLock]:
        """A free build id and the claim on it; `add` its record while the claim is held."""
        return self._ownership.reserve(customer, self._exists)

    def claim(self, build_id: str) -> KernelLock:
        """Become the build's owner; `UsageError` when a living process is."""
        return self._ownership.claim(build_id)

    def is_owned(self, build_id: str) -> bool:
        """Whether a living process drives the build."""
        return self._ownership.is_owned(build_id)

    def add(self, record: BuildRecord) -> None:
        """Store a new build; `InternalError` when its id is in use.

        Claim it first, or another process takes it for an orphan.
        """
        light, heavy = values_of(_fields_of(record))
        with self._database.writing() as connection:
            try:
                connection.execute(insert(builds).values(light))
            except IntegrityError as error:
                raise InternalError(f"there is a build {record.build_id} already") from error
            connection.execute(insert(details).values({**heavy, "build_id": record.build_id}))

    def add_run(self, run: BuildRecord, build_ids: Collection[str]) -> None:
        """Store a run that is made once for these builds, which are queued; hidden from lists.

        All in one transaction: each build then names the run. Claim it first, as for `add`.
        `InternalError` when one of them is not queued any more.
        """
        light, heavy = values_of(_fields_of(run))
        those = (builds.c.build_id.in_(build_ids), builds.c.state == str(BuildState.QUEUED))
        with self._database.writing() as connection:
            connection.execute(insert(builds).values({**light, "deleted": self._clock.now()}))
            connection.execute(insert(details).values({**heavy, "build_id": run.build_id}))
            joining = update(builds).where(*those).values(shared_run=run.build_id)
            if connection.execute(joining).rowcount != len(build_ids):
                raise InternalError(f"a build for which {run.build_id} was to run is not queued")

    def save(self, record: BuildRecord) -> BuildRecord:
        """Store all fields of a build that was added; see `update`."""
        if record.is_summary:
            raise InternalError(f"the record of {record.build_id} comes from a list: not whole")
        changes = _fields_of(record)
        return self.update(changes.pop("build_id"), **changes)

    def update(self, build_id: str, **changes: object) -> BuildRecord:
        """Change fields of one build in one transaction and return the result.

        A final state never changes and stages only go forward (but back to preparing, when a
        build begins anew, or to queued, when a run that it shared came to nothing): else
        `InternalError`. `UsageError` when there is no such build.
        """
        light, heavy = values_of(changes)
        with self._database.writing() as connection:
            if light:
                self._change(connection, build_id, light)
            if heavy:
                this = details.c.build_id == build_id
                connection.execute(update(details).where(this).values(heavy))
            return self._load(connection, build_id)

    def get(self, build_id: str, *, include_deleted: bool = False) -> BuildRecord:
        """The build with this id or unique beginning; `UsageError` naming the nearest ones."""
        with self._database.reading() as connection:
            return self._load(connection, self._find(connection, build_id, include_deleted))

    def list(
        self,
        *,
        limit: int = 50,
        state: BuildState | Collection[BuildState] | None = None,
        customer: str | None = None,
        project: str | None = None,
        before: str | None = None,
        include_deleted: bool = False,
    ) -> list[BuildRecord]:
        """Summaries, newest first; `before` is the last id of the previous page."""
        query = select(builds).order_by(builds.c.seq.desc()).limit(limit)
        if not include_deleted:
            query = query.where(builds.c.deleted.is_(None))
        if state is not None:
            states = [state] if isinstance(state, BuildState) else list(state)
            query = query.where(builds.c.state.in_([str(item) for item in states]))
        if customer is not None:
            query = query.where(builds.c.customer == customer)
        if project is not None:
            query = query.where(builds.c.project == project)
        with self._database.reading() as connection:
            if before is not None:
                query = query.where(builds.c.seq < _position(connection, before))
            return [record_from(row._asdict()) for row in connection.execute(query)]

    def state_of(self, build_id: str) -> BuildState:
        """The state of the build with exactly this id, hidden or not; `NotFoundError`."""
        query = select(builds.c.state).where(builds.c.build_id == build_id)
        with self._database.reading() as connection:
            state = connection.execute(query).scalar()
            if state is None:
                raise _unknown(connection, build_id)
            return BuildState(state)

    def totals(self) -> Mapping[tuple[BuildState, FailureKind | None], int]:
        """How many builds there are by state and failure kind, the hidden ones too.

        What was run once for several counts as those.
        """
        columns = (builds.c.state, builds.c.failure_kind)
        runs = select(builds.c.shared_run).where(builds.c.shared_run != "")
        counted = select(*columns, func.count()).where(builds.c.build_id.not_in(runs))
        query = counted.group_by(*columns)
        with self._database.reading() as connection:
            return {
                (BuildState(state), FailureKind(kind) if kind else None): count
                for state, kind, count in connection.execute(query)
            }

    def find_orphans(self) -> Sequence[BuildRecord]:
        """Builds that are not over and whose process is gone, oldest first."""
        alive = [state for state in BuildState if not state.is_final]
        unfinished = self.list(limit=1_000_000, state=alive, include_deleted=True)
        return [item for item in reversed(unfinished) if not self.is_owned(item.build_id)]

    def mark_interrupted(self, build_id: str, message: str = "") -> BuildRecord:
        """Let an orphan end as failed, kind `interrupted`; a finished build stays as it is.

        `UsageError` when a living process drives it.
        """
        with self.claim(build_id):
            record = self.get(build_id, include_deleted=True)
            if record.state.is_final:
                return record
            return self.update(
                build_id,
                state=BuildState.FAILED,
                ended=self._clock.now(),
                failure_kind=FailureKind.INTERRUPTED,
                failure_message=message or "The process that drove this build ended in the middle.",
                owner_pid=None,
            )

    def soft_delete(self, build_id: str) -> None:
        """Hide a build that is over; `ConflictError` when it still runs, `NotFoundError`."""
        with self._database.writing() as connection:
            record = self._load(connection, build_id)
            if not record.state.is_final:
                raise ConflictError(
                    f"build {build_id} is still {record.state}",
                    hint="Cancel it or wait for its end first.",
                )
            this = builds.c.build_id == build_id
            hide = update(builds).where(this, builds.c.deleted.is_(None))
            connection.execute(hide.values(deleted=self._clock.now()))

    def hidden(self, deleted_before: datetime | None = None) -> Sequence[str]:
        """Ids of the builds that were hidden, before a time when one is given; oldest first."""
        with self._database.reading() as connection:
            return list(connection.execute(_hidden(deleted_before)).scalars())

    def purge(
        self,
        deleted_before: datetime | None = None,
        *,
        among: Collection[str] | None = None,
    ) -> Sequence[str]:
        """Drop the records of hidden builds (hidden before a time) for good; return their ids.

        `among` spares all others.
        """
        with self._database.writing() as connection:
            found = connection.execute(_hidden(deleted_before)).scalars()
            gone = [build_id for build_id in found if among is None or build_id in among]
            for build_id in gone:
                connection.execute(delete(details).where(details.c.build_id == build_id))
                connection.execute(delete(builds).where(builds.c.build_id == build_id))
        for build_id in gone:
            self._ownership.forget(build_id)
        return gone

    def _exists(self, build_id: str) -> bool:
        with self._database.reading() as connection:
            this = select(builds.c.seq).where(builds.c.build_id == build_id)
            return connection.execute(this).first() is not None

    def _change(self, connection: Connection, build_id: str, light: Mapping[str, Any]) -> None:
        change = update(builds).where(builds.c.build_id == build_id)
        if "state" in light:
            allowed = _states_before(BuildState(light["state"]))
            change = change.where(builds.c.state.in_(allowed))
        if connection.execute(change.values(light)).rowcount == 0:
            found = self._load(connection, build_id)
            raise InternalError(f"build {build_id} is {found.state}: can't be {light['state']}")

    def _load(self, connection: Connection, build_id: str) -> BuildRecord:
        columns = [*builds.c, *(column for column in details.c if column.name != "build_id")]
        query = select(*columns).join(details).where(builds.c.build_id == build_id)
        row = connection.execute(query).first()
        if row is None:
            raise _unknown(connection, build_id)
        return record_from(row._asdict())

    def _find(self, connection: Connection, wanted: str, include_deleted: bool) -> str:
        query = select(builds.c.build_id).order_by(builds.c.seq.desc())
        if not include_deleted:
            query = query.where(builds.c.deleted.is_(None))
        if connection.execute(query.where(builds.c.build_id == wanted)).first():
            return wanted
        beginning = builds.c.build_id.startswith(wanted, autoescape=True)
        matches = list(connection.execute(query.where(beginning).limit(6)).scalars())
        if not wanted or not matches:
            raise _unknown(connection, wanted)
        if len(matches) > 1:
            shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise UsageError(f"several builds begin with {wanted!r}", hint=f"Which one: {shown}?")
        return str(matches[0])


def _fields_of(record: BuildRecord) -> dict[str, Any]:
    names = (item.name for item in fields(record) if item.name != "is_summary")
    return {name: getattr(record, name) for name in names}


def _states_before(state: BuildState) -> list[str]:
    if state.is_final:
        return [str(earlier) for earlier in (*_ORDER, state)]
    reachable = list(_ORDER[: _ORDER.index(state) + 1])
    if state in {BuildState.QUEUED, BuildState.PREPARING}:
        reachable = list(_ORDER)
    return [str(earlier) for earlier in reachable]


def _hidden(before: datetime | None) -> Select[Any]:
    alive = [str(state) for state in BuildState if not state.is_final]
    waiting = builds.alias()
    # What a run left is for its builds to take, also when nobody drives them at the moment.
    is_wanted = exists().where(
        waiting.c.shared_run == builds.c.build_id, waiting.c.state.in_(alive)
    )
    query = (
        select(builds.c.build_id)
        .where(builds.c.deleted.is_not(None), ~is_wanted)
        .order_by(builds.c.seq)
    )
    return query if before is None else query.where(builds.c.deleted < before)


def _position(connection: Connection, build_id: str) -> int:
    query = select(builds.c.seq).where(builds.c.build_id == build_id)
    position = connection.execute(query).scalar()
    if position is None:
        raise _unknown(connection, build_id)
    return int(position)


def _unknown(connection: Connection, wanted: str) -> NotFoundError:
    visible = select(builds.c.build_id).where(builds.c.deleted.is_(None))
    newest = visible.order_by(builds.c.seq.desc()).limit(_NEAREST_AMONG)
    known = list(connection.execute(newest).scalars())
    nearest = difflib.get_close_matches(wanted[:80], known, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "'smidr list' shows all builds."
    return NotFoundError(f"there is no build {wanted[:80]!r}", hint=hint)
