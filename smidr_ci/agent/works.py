"""The builds of an agent that are not over: queued, held together, driven, each in a thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from smidr_ci.agent.feed import Feed
from smidr_ci.agent.gathering import alike, likeness_for
from smidr_ci.agent.recovery import recover, remove_leftovers
from smidr_ci.agent.settings import Settings
from smidr_ci.agent.task import Task
from smidr_ci.agent.together import Companion, Runs
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.pipeline import drive
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.shared_runs import begin_run, forget_artifacts, is_run
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import EngineError, FailureKind, SmidrError
from smidr_ci.locks import KernelLock

__all__ = ["Finished", "Works"]

_log = logging.getLogger(__name__)

_BY_ENGINE: Final = frozenset({FailureKind.ENGINE, FailureKind.INTERRUPTED})
_RECHECK_S: Final = 5.0
_UNWANTED: Final = "Nobody waits for this run any more."

Finished = Callable[[BuildRecord], object]
"""Takes a final record; called from the build's thread, must not raise."""


class Works:
    """Owns the threads of builds; `wake` is set when the queue should be looked at."""

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        feed: Feed,
        finished: Sequence[Finished],
        wake: threading.Event,
    ) -> None:
        """`finished` hear of each build that ended."""
        self._settings = settings
        self._scheduler = scheduler
        self._feed = feed
        self._finished = tuple(finished)
        self._wake = wake
        self._tasks: dict[str, Task] = {}
        self._runs = Runs()
        self._lock = threading.Lock()
        self.problem = ""
        """Why no build can go on; empty when they can."""
        self._has_lost_one = False
        self._may_have_left_one = False

    def recover(self) -> None:
        """Take up what an earlier agent left; raises `SmidrError` when the store can't be read."""
        self._has_lost_one = False
        found = []
        try:
            for record, claim in recover(self._settings.host):
                _log.info("going on with build %s, which is %s", record.build_id, record.state)
                found.append((record, claim))
        except SmidrError:
            self._has_lost_one = True
            raise
        finally:
            self._go_on(found)

    def _go_on(self, found: Sequence[tuple[BuildRecord, KernelLock]]) -> None:
        for record, _ in found:
            if record.shared_run:
                self._runs.join(record.shared_run, record.build_id)
        for record, claim in found:
            self.queue(record, claim)
            if is_run(record) and not self._runs.builds_of(record.build_id):
                self._tasks[record.build_id].cancel.cancel(_UNWANTED)

    def tidy(self) -> None:
        """Remove what no build needs, in the background."""
        host = self._settings.host
        threading.Thread(target=remove_leftovers, args=(host,), name="tidy", daemon=True).start()

    def mend(self) -> None:
        """Do now what could not be done before: the store or the engine was away."""
        if self._has_lost_one:
            self.recover()
        if self._may_have_left_one and not self.engine_problem():
            self._may_have_left_one = False
            self.tidy()

    def engine_problem(self) -> str:
        """What the operator should know of an engine that does not answer; else empty."""
        try:
            self._settings.host.engine.reach()
        except EngineError as error:
            return f"The container engine does not answer: {error.message}"
        return ""

    def running(self) -> tuple[str, ...]:
        """What has a place, and of a run the builds that it is for."""
        places = self._scheduler.running
        return tuple(item for place in places for item in (self._runs.builds_of(place) or (place,)))

    def driven(self) -> list[str]:
        """Builds and runs that a thread leads to their end."""
        with self._lock:
            return [build_id for build_id, task in self._tasks.items() if task.is_driven]

    def wanted(self) -> list[str]:
        """All builds that are not over; runs are not among them."""
        with self._lock:
            return [build_id for build_id, task in self._tasks.items() if not task.is_run]

    def queue(
        self, record: BuildRecord, claim: KernelLock, request: BuildRequest | None = None
    ) -> None:
        """Take a build in: to the queue, or on where it was."""
        task = self._enter(record, claim, request)
        if record.shared_run:
            self._launch(record.build_id)
        elif record.state is not BuildState.QUEUED or record.cancel_reason or task.is_run:
            self._scheduler.resume(task.waiting)
            self._launch(record.build_id)
        else:
            self._scheduler.add(task.waiting)
            self._wake.set()

    def _enter(
        self, record: BuildRecord, claim: KernelLock, request: BuildRequest | None = None
    ) -> Task:
        cancel = CancelToken()
        if record.cancel_reason:
            cancel.cancel(record.cancel_reason)
        waiting = self._settings.waiting(record, request)
        likeness = likeness_for(self._settings.host, record, request)
        observer = self._feed.observer(record)
        task = Task(
            *(claim, cancel, observer, waiting, likeness),
            run_id=record.shared_run,
            is_run=is_run(record),
        )
        with self._lock:
            self._tasks[record.build_id] = task
        return task

    def start_next(self) -> bool:
        """Start the build whose turn it is; False when none may start."""
        waiting = self._scheduler.take()
        if waiting is None:
            return False
        self._hold_alike(self._tasks[waiting.build_id])  # before the next one is taken
        self._launch(waiting.build_id)
        return True

    def cancel(self, build_id: str, reason: str, level: CancelLevel) -> BuildRecord:
        """Ask for a stop, which holds over a restart; a build that is over stays as it is."""
        store = self._settings.host.store
        record = store.get(build_id)
        build_id = record.build_id
        task = self._tasks.get(build_id)
        if record.state.is_final or task is None:
            return record
        if not record.cancel_reason:
            record = store.update(build_id, cancel_reason=reason)
        task.observer.cancelling(reason)
        task.cancel.cancel(reason, level)
        if self._scheduler.drop(build_id):
            self._launch(build_id)  # straight to its end, without a slot
        self._feed.wake(build_id)
        return record

    def _stop_run(self, run_id: str, reason: str, level: CancelLevel) -> None:
        """Cancel what nobody wants any more."""
        self._settings.host.store.update(run_id, cancel_reason=reason)
        task = self._tasks.get(run_id)
        if task is not None:
            task.cancel.cancel(reason, level)

    def _launch(self, build_id: str) -> None:
        task = self._tasks[build_id]
        task.is_driven = True
        name = f"build-{build_id}"
        threading.Thread(target=self._drive, args=(build_id, task), name=name, daemon=True).start()

    def _drive(self, build_id: str, task: Task) -> None:
        host, is_lost, final = self._settings.host, False, None
        try:
            final = self._final_record(host, build_id, task)
            if final is not None and final.failure_kind in _BY_ENGINE:
                self._may_have_left_one = True  # a container, which nobody could remove then
            if final is not None and not task.is_run:
                self._tell(host, final)
        except SmidrError as error:
            # The store can't be written: the build is taken up again when it can.
            is_lost = True
            _log.error("build %s is left as it is: %s", build_id, error)
        except Exception:  # noqa: BLE001 - other builds go on
            is_lost = True
            _log.exception(
                "build %s, or who is to hear of its end, has a fault of smidr's", build_id
            )
        finally:
            self._let_go(task)
            if not is_lost and task.run_id and self._runs.end(task.run_id, build_id):
                self._forget_run(host, task.run_id)
            if final is None and not is_lost:
                self._wait_again(build_id, task)
            else:
                self._close(build_id, task, is_lost=is_lost)

    def _close(self, build_id: str, task: Task, *, is_lost: bool) -> None:
        task.claim.release()
        self._scheduler.finished(build_id)
        with self._lock:
            self._tasks.pop(build_id, None)
        self._feed.close(build_id)
        if is_lost:
            self._has_lost_one = True  # the next round will do: it would only fail again now
        else:
            self._wake.set()

    def _wait_again(self, build_id: str, task: Task) -> None:
        """Its shared run came to nothing, for a reason that was not the build's own."""
        task.is_driven, task.run_id = False, ""
        self._scheduler.add(task.waiting)
        # A cancel that came in between did not find it in the queue.
        if task.cancel.is_cancelled and self._scheduler.drop(build_id):
            self._launch(build_id)
        self._wake.set()

    def _forget_run(self, host: Host, run_id: str) -> None:
        with contextlib.suppress(SmidrError):
            run = host.store.get(run_id, include_deleted=True)
            if run.state.is_final:
                forget_artifacts(host, run)

    def _final_record(self, host: Host, build_id: str, task: Task) -> BuildRecord | None:
        """None for a build that has to wait again."""
        record = host.store.get(build_id, include_deleted=True)
        if task.alike:
            record = self._gathered(host, record, task)
            self._let_go(task)
        if record.shared_run:
            return Companion(
                *(host, self._feed, self._runs, self._stop_run, record), task.cancel, task.observer
            ).lead()
        if record.state is not BuildState.QUEUED:
            self._await_engine(task.cancel)
        try:
            return drive(host, record, task.claim, task.cancel, task.observer)
        except SmidrError:
            raise
        except Exception:  # noqa: BLE001 - other builds go on
            _log.exception("build %s ended with a fault of smidr's", build_id)
            return host.store.get(build_id, include_deleted=True)

    def _hold_alike(self, task: Task) -> None:
        """Take builds out of the queue that were ordered like this one, the oldest first."""
        if not task.likeness:
            return
        with self._lock:
            found = [
                (other.waiting.position, build_id)
                for build_id, other in self._tasks.items()
                if other.likeness == task.likeness and not other.is_driven
            ]
        oldest_first = [build_id for _, build_id in sorted(found)]
        task.alike = tuple(item for item in oldest_first if self._scheduler.drop(item))

    def _let_go(self, task: Task) -> None:
        """Those that were held and share no run wait on, where they were in the queue."""
        held, task.alike = task.alike, ()
        for build_id in held:
            self._wait_again(build_id, self._tasks[build_id])

    def _gathered(self, host: Host, record: BuildRecord, task: Task) -> BuildRecord:
        """The record as it is, or with a run for it and for those that are held and are like it."""
        others = alike(host, record, task.alike, task.cancel)
        if not others:
            return record
        run, claim = begin_run(host, record, others)
        task.alike = tuple(item for item in task.alike if item not in others)
        ids = (record.build_id, *others)
        _log.info("%s is run for %s", run.build_id, ", ".join(ids))
        for build_id in ids:
            self._runs.join(run.build_id, build_id)
            member = self._tasks[build_id]
            member.run_id, member.likeness = run.build_id, ""
            member.observer.note(f"built once for {', '.join(ids)}, as {run.build_id}")
        # It has the place that the build had.
        self._enter(run, claim)
        self._scheduler.resume(replace(task.waiting, build_id=run.build_id))
        self._scheduler.finished(record.build_id)
        for build_id in (run.build_id, *others):
            self._launch(build_id)
        return host.store.get(record.build_id, include_deleted=True)

    def _await_engine(self, cancel: CancelToken) -> None:
        """A build that was found running waits for its engine: both may have just been started."""
        while problem := self.engine_problem():
            self.problem = problem
            if cancel.wait(_RECHECK_S, CancelLevel.KILL):
                return
        self.problem = ""

    def _tell(self, host: Host, final: BuildRecord) -> None:
        from smidr_ci.reports.summary import write_summary  # noqa: PLC0415 - not at every start

        write_summary(host, final)
        for finished in self._finished:
            finished(final)
