"""Keeps a running build's record: in the store first, then to whoever watches."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from smidr_ci.builds.model import BuildRecord, BuildState, StageRecord
from smidr_ci.builds.observer import BuildObserver
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.reserve import Reserve
from smidr_ci.builds.store import BuildStore
from smidr_ci.clock import Clock
from smidr_ci.errors import FailureKind, HostError

__all__ = ["Journal"]


class Journal:
    """The one writer of a build's record while it runs; thread-safe."""

    def __init__(
        self,
        record: BuildRecord,
        store: BuildStore,
        observer: BuildObserver,
        clock: Clock,
        reserve: Reserve,
    ) -> None:
        self._record = record
        self._unsaved: dict[str, Any] = {}
        self._reserve = reserve
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self.observer = observer

    @property
    def record(self) -> BuildRecord:
        """The record as it stands now."""
        return self._record

    def note(self, **changes: Any) -> None:  # noqa: ANN401 - fields of BuildRecord
        """Change fields of the record; on a full disk the next change takes this one along."""
        try:
            self._save(changes)
        except HostError as error:
            if error.kind is not FailureKind.DISK:
                raise

    def enter(self, state: BuildState) -> None:
        """Begin a stage, or go on with it after a restart; the one before ends now."""
        now = self._clock.now()
        stages = self._record.stages
        if not stages or stages[-1].ended or stages[-1].name != state:
            stages = (*self._closed_stages(now), StageRecord(str(state), now))
        started = self._record.started or now
        self.note(state=state, stages=stages, started=started)
        self.observer.changed(self._record)

    def finish(self, outcome: Outcome) -> BuildRecord:
        """Write the final state; nothing changes after it."""
        self.make_room()
        now = self._clock.now()
        self._save(
            {
                "state": outcome.state,
                "ended": now,
                "exit_code": outcome.exit_code,
                "failure_kind": outcome.kind,
                "failure_message": outcome.message,
                "stages": self._closed_stages(now),
                "findings": self._findings_of(outcome),
                "owner_pid": None,
            }
        )
        self.observer.changed(self._record)
        return self._record

    def hold_room(self) -> None:
        """Hold back the space that the end needs; raises `HostError` when there is none."""
        self._reserve.take()

    def make_room(self) -> None:
        """Free the space that was held back for the end: what is left to do must not fail."""
        self._reserve.give_back()

    def _save(self, changes: Mapping[str, Any]) -> None:
        with self._lock:
            self._record = replace(self._record, **changes)
            # Only what changed here: a cancel is written by somebody else.
            self._unsaved |= changes
            self._store.update(self._record.build_id, **self._unsaved)
            self._unsaved = {}

    def _findings_of(self, outcome: Outcome) -> tuple[Mapping[str, Any], ...]:
        found = self._record.findings
        if outcome.state is BuildState.COMPLETED:
            # Errors of an earlier attempt, which another one has passed.
            found = tuple(item for item in found if item["severity"] != "error")
        return found

    def _closed_stages(self, now: datetime) -> tuple[StageRecord, ...]:
        return tuple(
            stage if stage.ended else replace(stage, ended=now) for stage in self._record.stages
        )
