"""The agent: takes orders, runs their builds side by side, goes on with them after a restart."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smidr_ci import __version__
from smidr_ci.agent.feed import Feed
from smidr_ci.agent.gathering import alike, likeness_for
from smidr_ci.agent.recovery import recover, remove_leftovers
from smidr_ci.agent.settings import Settings
from smidr_ci.agent.status import AgentStatus, OutboxStatus
from smidr_ci.agent.task import Task
from smidr_ci.agent.together import Companion, Runs
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.pipeline import drive
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.service import AGENT_STOPPED, BuildView
from smidr_ci.builds.shared_runs import begin_run, forget_artifacts, is_run
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import BusyError, EngineError, FailureKind, SmidrError
from smidr_ci.forges.status import RegistrationStatus
from smidr_ci.locks import KernelLock

__all__ = ["Agent"]

_log = logging.getLogger(__name__)

_BY_ENGINE: Final = frozenset({FailureKind.ENGINE, FailureKind.INTERRUPTED})
_RECHECK_S: Final = 5.0
_TICK_S: Final = 20.0
_LAST_LOOK_S: Final = 0.5
_UNWANTED: Final = "Nobody waits for this run any more."

Finished = Callable[[BuildRecord], object]
"""Takes a final record; called from the build's thread, must not raise."""


class Agent:
    """Owns the builds of one host; a `BuildService`, with the process's own controls.

    Builds run in daemon threads: when the process ends they are cut off at any point, and the
    next agent goes on with them. All methods may be called from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        finished: Sequence[Finished] = (),
        host_is_short: Callable[[], object] = lambda: None,
    ) -> None:
        """`finished` hear of each build that ended, `host_is_short` of builds that wait for room.

        Raises `ConfigError` for bad settings.
        """
        self._settings = settings
        self._scheduler = settings.scheduler()
        self._finished = tuple(finished)
        self._host_is_short = host_is_short
        self._started = settings.host.clock.now()
        self.feed = Feed(first_version=int(self._started.timestamp() * 1000))
        self._tasks: dict[str, Task] = {}
        self._runs = Runs()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._problem = ""
        self._has_lost_one = False
        self._may_have_left_one = False
        self._ticked = settings.host.clock.monotonic()
        self.listening: tuple[str, ...] = ()
        """Where the API answers; set by whoever serves it."""
        self.outbox_status: Callable[[], tuple[OutboxStatus, ...]] = tuple
        self.warnings: Callable[[], tuple[str, ...]] = tuple
        """What else the operator should see to; set by whoever knows."""
        self.registrations: Callable[[], tuple[RegistrationStatus, ...]] = tuple
        """The forges that jobs come from."""
        self.is_needed: Callable[[], bool] = lambda: False
        """Whether a draining agent has to stay for something else than builds."""

    # What the API and the forges use: `BuildService`.

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        """Check an order, store it and queue it; the record is on disk when this returns."""
        if self._scheduler.is_draining or self._ending.is_set():
            raise BusyError("the agent takes nothing new: it drains", hint="Ask again later.")
        host = self._settings.host
        most = host.agent.limits.max_queued_builds
        if len(self._scheduler.queued) >= most:
            raise BusyError(
                f"{most} builds wait already", hint="Ask again when some of them are over."
            )
        request = request_for(host, order)
        record, claim = enlist(host, request, order, source)
        self._queue(record, claim, request)
        return record

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
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
        self.feed.wake(build_id)
        return record

    def _stop_run(self, run_id: str, reason: str, level: CancelLevel) -> None:
        """Cancel what nobody wants any more."""
        self._settings.host.store.update(run_id, cancel_reason=reason)
        task = self._tasks.get(run_id)
        if task is not None:
            task.cancel.cancel(reason, level)

    def view(self, build_id: str) -> BuildView:
        """The build with this id or unique beginning; raises `UsageError`."""
        view = self.feed.view(build_id)
        if view is None:
            # Version first: whoever closes the topic in between raises it once more.
            version = self.feed.version
            record = self._settings.host.store.get(build_id)
            view = self.feed.view(record.build_id) or BuildView(version, record)
        return view

    def subscribe(self, build_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called after each change of a build; returns what ends that."""
        return self.feed.subscribe(build_id, wake)

    # What the process uses.

    def start(self) -> None:
        """Go on with what an earlier agent left, then begin to take from the queue."""
        self._recover()
        self._tidy()
        threading.Thread(target=self._loop, name="scheduler", daemon=True).start()

    def _tidy(self) -> None:
        host = self._settings.host
        threading.Thread(target=remove_leftovers, args=(host,), name="tidy", daemon=True).start()

    def status(self) -> AgentStatus:
        """One moment of the agent."""
        reasons = self._scheduler.reasons()
        own = (self._problem,) if self._problem else ()
        problems = (*self._settings.problems, *own, *self.warnings())
        return AgentStatus(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            is_draining=self._scheduler.is_draining,
            running=self._running(),
            queued={item: self._problem or reasons.get(item, "") for item in reasons},
            max_running=self._scheduler.max_running,
            listening=self.listening,
            outbox=self.outbox_status(),
            problems=problems,
            settings=self._settings.described(),
            registrations=self.registrations(),
            taken=len(self._scheduler.running),
        )

    def _running(self) -> tuple[str, ...]:
        """What has a place, and of a run the builds that it is for."""
        places = self._scheduler.running
        return tuple(item for place in places for item in (self._runs.builds_of(place) or (place,)))

    def refusal(self, expected: int = 0) -> str | None:
        """Why a build that is ordered now would wait, when so many others come before it."""
        return self._scheduler.refusal(expected) or self._engine_problem() or None

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new, and ends when what runs is over."""
        return self._scheduler.is_draining

    def drain(self) -> None:
        """Take nothing new, and end when what runs is over; returns at once."""
        self._scheduler.drain()
        self._wake.set()

    def stop(self, *, cancel_builds: bool = False) -> None:
        """End; builds that run go on without the agent, or are cancelled first.

        Returns at once; `ended` tells when the process may go.
        """
        if not cancel_builds:
            self._ending.set()
        else:
            self._cancel_all()
            self._scheduler.drain()
            self._cancel_all()  # what came in between
        self._wake.set()

    def _cancel_all(self) -> None:
        with self._lock:
            wanted = [build_id for build_id, task in self._tasks.items() if not task.is_run]
        for build_id in wanted:
            self.cancel(build_id, AGENT_STOPPED)

    def reload(self) -> None:
        """Read agent.yaml again; a bad one changes nothing and shows as a problem."""
        self._settings.reload(self._scheduler)
        self._wake.set()

    def wait_until_ended(self, timeout_s: float | None = None) -> bool:
        """Wait until the process may go: told to stop, or drained and nothing runs."""
        return self._ending.wait(timeout_s)

    def is_alive(self) -> bool:
        """Whether the scheduler goes round: what a watchdog asks."""
        return self._settings.host.clock.monotonic() - self._ticked < 3 * _TICK_S

    # Inside.

    def _queue(
        self, record: BuildRecord, claim: KernelLock, request: BuildRequest | None = None
    ) -> None:
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
        observer = self.feed.observer(record)
        task = Task(
            *(claim, cancel, observer, waiting, likeness),
            run_id=record.shared_run,
            is_run=is_run(record),
        )
        with self._lock:
            self._tasks[record.build_id] = task
        return task

    def _recover(self) -> None:
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
            self._queue(record, claim)
            if is_run(record) and not self._runs.builds_of(record.build_id):
                self._tasks[record.build_id].cancel.cancel(_UNWANTED)

    def _loop(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            self._ticked = self._settings.host.clock.monotonic()
            try:
                pause_s = self._take_what_may_start()
            except Exception:  # noqa: BLE001 - the loop must outlive a bug in one round
                _log.exception("the scheduler stumbled")
                pause_s = _RECHECK_S
            if self._scheduler.is_draining and not self._driven():
                if not self.is_needed():
                    self._ending.set()
                    return
                pause_s = _LAST_LOOK_S
            self._wake.wait(pause_s)

    def _take_what_may_start(self) -> float:
        """Start what may start; returns after how many seconds to look again in any case."""
        if self._has_lost_one:
            self._recover()
        if self._may_have_left_one and not self._engine_problem():
            self._may_have_left_one = False
            self._tidy()
        self._problem = self._engine_problem() if self._scheduler.queued else ""
        while not self._problem and (waiting := self._scheduler.take()) is not None:
            self._hold_alike(self._tasks[waiting.build_id])  # before the next one is taken
            self._launch(waiting.build_id)
        if self._scheduler.wants_recheck:
            self._host_is_short()
        reasons = self._scheduler.reasons()
        self.feed.explain({item: self._problem or why for item, why in reasons.items()})
        return _RECHECK_S if self._problem or self._scheduler.wants_recheck else _TICK_S

    def _engine_problem(self) -> str:
        try:
            self._settings.host.engine.reach()
        except EngineError as error:
            return f"The container engine does not answer: {error.message}"
        return ""

    def _driven(self) -> list[str]:
        with self._lock:
            return [build_id for build_id, task in self._tasks.items() if task.is_driven]

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
        self.feed.close(build_id)
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
                *(host, self.feed, self._runs, self._stop_run, record), task.cancel, task.observer
            ).lead()
        if record.state is not BuildState.QUEUED:
            self._await_engine(host, task.cancel)
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

    def _await_engine(self, host: Host, cancel: CancelToken) -> None:
        """A build that was found running waits for its engine: both may have just been started."""
        while True:
            try:
                host.engine.reach()
            except EngineError as error:
                self._problem = f"The container engine does not answer: {error.message}"
                if cancel.wait(_RECHECK_S, CancelLevel.KILL):
                    return
            else:
                self._problem = ""
                return

    def _tell(self, host: Host, final: BuildRecord) -> None:
        from smidr_ci.reports.summary import write_summary  # noqa: PLC0415 - not at every start

        write_summary(host, final)
        for finished in self._finished:
            finished(final)
