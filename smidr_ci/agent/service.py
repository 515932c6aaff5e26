"""The agent: takes orders, runs their builds side by side, goes on with them after a restart."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from smidr_ci import __version__
from smidr_ci.agent.feed import Feed
from smidr_ci.agent.settings import Settings
from smidr_ci.agent.status import AgentStatus, OutboxStatus
from smidr_ci.agent.works import Finished, Works
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import AGENT_STOPPED, BuildView
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import BusyError
from smidr_ci.forges.status import RegistrationStatus

__all__ = ["Agent"]

_log = logging.getLogger(__name__)

_RECHECK_S: Final = 5.0
_TICK_S: Final = 20.0
_LAST_LOOK_S: Final = 0.5


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
        self._host_is_short = host_is_short
        self._started = settings.host.clock.now()
        self.feed = Feed(first_version=int(self._started.timestamp() * 1000))
        self._wake = threading.Event()
        self._works = Works(settings, self._scheduler, self.feed, finished, self._wake)
        self._ending = threading.Event()
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
        self._works.queue(record, claim, request)
        return record

    def cancel(
        self, build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT
    ) -> BuildRecord:
        """Ask for a stop, which holds over a restart; a build that is over stays as it is."""
        return self._works.cancel(build_id, reason, level)

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
        self._works.recover()
        self._works.tidy()
        threading.Thread(target=self._loop, name="scheduler", daemon=True).start()

    def status(self) -> AgentStatus:
        """One moment of the agent."""
        reasons = self._scheduler.reasons()
        problem = self._works.problem
        own = (problem,) if problem else ()
        problems = (*self._settings.problems, *own, *self.warnings())
        return AgentStatus(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            is_draining=self._scheduler.is_draining,
            running=self._works.running(),
            queued={item: problem or reasons.get(item, "") for item in reasons},
            max_running=self._scheduler.max_running,
            listening=self.listening,
            outbox=self.outbox_status(),
            problems=problems,
            settings=self._settings.described(),
            registrations=self.registrations(),
            taken=len(self._scheduler.running),
        )

    def refusal(self, expected: int = 0) -> str | None:
        """Why a build that is ordered now would wait, when so many others come before it."""
        return self._scheduler.refusal(expected) or self._works.engine_problem() or None

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
        for build_id in self._works.wanted():
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

    def _loop(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            self._ticked = self._settings.host.clock.monotonic()
            try:
                pause_s = self._take_what_may_start()
            except Exception:  # noqa: BLE001 - the loop must outlive a bug in one round
                _log.exception("the scheduler stumbled")
                pause_s = _RECHECK_S
            if self._scheduler.is_draining and not self._works.driven():
                if not self.is_needed():
                    self._ending.set()
                    return
                pause_s = _LAST_LOOK_S
            self._wake.wait(pause_s)

    def _take_what_may_start(self) -> float:
        """Start what may start; returns after how many seconds to look again in any case."""
        works = self._works
        works.mend()
        works.problem = works.engine_problem() if self._scheduler.queued else ""
        while not works.problem and works.start_next():
            pass
        if self._scheduler.wants_recheck:
            self._host_is_short()
        reasons = self._scheduler.reasons()
        self.feed.explain({item: works.problem or why for item, why in reasons.items()})
        return _RECHECK_S if works.problem or self._scheduler.wants_recheck else _TICK_S
