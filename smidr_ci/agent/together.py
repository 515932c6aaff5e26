"""Builds that wait and would come to the same are run once; here each of them is led to its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smidr_ci.agent.feed import Feed, FeedObserver
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.reserve import Reserve
from smidr_ci.builds.service import BuildView
from smidr_ci.builds.shared_runs import give_back, has_built, is_for_all, keep_up, take_result
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import NotFoundError, SmidrError

__all__ = ["Companion", "Runs"]

_log = logging.getLogger(__name__)

_LOOK_S: Final = 20.0
_SOON_S: Final = 0.5

Stop = Callable[[str, str, CancelLevel], object]
"""Cancels a run: its id, why, how hard."""


class Runs:
    """Which builds each run is for, and which of them still want it; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._builds: dict[str, dict[str, bool]] = {}

    def join(self, run_id: str, build_id: str) -> None:
        """The build waits for the run; all do before any of them is led."""
        with self._lock:
            self._builds.setdefault(run_id, {})[build_id] = True

    def leave(self, run_id: str, build_id: str) -> bool:
        """The build wants the run no more; whether nobody does. May be asked again."""
        with self._lock:
            wishes = self._builds.setdefault(run_id, {})
            wishes[build_id] = False
            return not any(wishes.values())

    def end(self, run_id: str, build_id: str) -> bool:
        """The build is over, or waits for itself; whether it was the last of the run's."""
        with self._lock:
            wishes = self._builds.get(run_id, {})
            wishes.pop(build_id, None)
            if not wishes:
                self._builds.pop(run_id, None)
            return not wishes

    def builds_of(self, run_id: str) -> tuple[str, ...]:
        """Those that are not over, the oldest first; empty for what is no run."""
        with self._lock:
            return tuple(self._builds.get(run_id, ()))


@dataclass
class Companion:
    """One build while its run is made; it has its own record, log, cancel and end."""

    host: Host
    feed: Feed
    runs: Runs
    stop: Stop
    record: BuildRecord
    cancel: CancelToken
    observer: FeedObserver

    def __post_init__(self) -> None:
        reserve = Reserve(self.host.home.root)
        store, clock = self.host.store, self.host.clock
        self._journal = Journal(self.record, store, self.observer, clock, reserve)
        self._noted = 0
        self._shown = -1
        self._asked = CancelLevel.NONE

    def lead(self) -> BuildRecord | None:
        """Show what the run does until it is over; the final record, or None: it waits again.

        Raises `SmidrError` only when the store can't be written.
        """
        changed = threading.Event()
        run_id = self.record.shared_run
        ends = [self.feed.subscribe(item, changed.set) for item in (run_id, self.record.build_id)]
        try:
            while True:
                changed.clear()
                view = self._look(run_id)
                if view is None or view.record.state.is_final:
                    return self._ended(view)
                if self.cancel.is_cancelled and not self._is_last(view.record):
                    return self._stopped()
                has_log = keep_up(self.host, self._journal, view.record)
                self._show(view)
                changed.wait(_LOOK_S if has_log else _SOON_S)
        finally:
            for end in ends:
                end()

    def _look(self, run_id: str) -> BuildView | None:
        view = self.feed.view(run_id)
        if view is not None:
            return view
        try:
            return BuildView(0, self.host.store.get(run_id, include_deleted=True))
        except NotFoundError:
            return None

    def _show(self, view: BuildView) -> None:
        if view.version == self._shown:
            return
        self._shown = view.version
        for note in view.notes:
            if note.number > self._noted:
                self._noted = note.number
                self.observer.note(note.text)
        if view.progress is not None:
            self.observer.progressed(view.progress)

    def _is_last(self, run: BuildRecord) -> bool:
        """Whether the run shall stop, since nobody wants it or it reads what goes with this one."""
        is_alone = self.runs.leave(run.build_id, self.record.build_id)
        if not is_alone and (not self._is_owner(run) or has_built(run)):
            return False
        if self.cancel.level > self._asked:
            self._asked = self.cancel.level
            self.stop(run.build_id, self.cancel.reason, self._asked)
        return True

    def _is_owner(self, run: BuildRecord) -> bool:
        return run.order.get("runs_for") == self.record.build_id

    def _ended(self, view: BuildView | None) -> BuildRecord | None:
        run = view.record if view is not None else None
        try:
            if run is not None and is_for_all(run):
                return take_result(self.host, self._journal, run)
            if self.cancel.is_cancelled:
                return self._stopped()
            if run is not None and run.state is BuildState.FAILED and self._is_owner(run):
                return take_result(self.host, self._journal, run)
        except (SmidrError, OSError) as error:
            if self._journal.record.state.is_final:
                raise
            failed = error if isinstance(error, SmidrError) else SmidrError(str(error))
            return self._journal.finish(Outcome.of(failed))
        self.observer.note("the shared run came to nothing: this build waits for one of its own")
        give_back(self.host, self._journal)
        return None

    def _stopped(self) -> BuildRecord:
        code, kind = self.cancel.kind.exit_code, self.cancel.kind
        return self._journal.finish(Outcome(BuildState.CANCELLED, code, kind, self.cancel.reason))
