"""Runners on demand for one registration: threads that look, listen, start and clean up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.runners.fleet import Fleet
from smidr_ci.forges.github.runners.jit import JitSource, Wanted
from smidr_ci.forges.github.runners.listening import Listener
from smidr_ci.forges.github.runners.ports import LocalRunner, Runners, RunnerState
from smidr_ci.text import printable

__all__ = ["BETWEEN_S", "JitDemand", "OnDemand", "ScaleSetDemand", "Told", "WantsRunners"]

log = logging.getLogger(__name__)

_LOOK_S: Final = 20.0
_SETTLE_S: Final = 15.0
BETWEEN_S: Final = 2.0
"""Many hints at once lead to one look."""
_FRESH_S: Final = 10.0
"""GitHub's lists may still show a job as waiting that one of our runners has just begun."""
_STOP_S: Final = 5.0
_LAST_LOOK_S: Final = 2.0
_JOB: Final = 100
"""Signs of a job's name, which is a stranger's."""


class WantsRunners(Protocol):
    """Where the number of runners comes from."""

    def begin(self) -> None:
        """Begin to look or listen."""

    def end(self) -> None:
        """End it, within seconds."""

    def heard(self, repository: str) -> None:
        """Something happened to a job there, or was approved."""

    def wanted(self, old_busy: int) -> Wanted:
        """How many should be alive; `old_busy` have been at work for a while.

        Raises `ForgeError`.
        """

    @property
    def every_s(self) -> float:
        """After how many seconds to ask again, without news."""


class Told(NamedTuple):
    """What runners on demand do now."""

    state: str
    """See `forges.status`."""
    detail: str
    figures: Mapping[str, int]
    """Runners that are `starting`, `idle`, `busy`, `wanted`, and how many more are `free`."""
    version: str
    """Of the official runner; empty when there is none yet."""


class Cuttable(Protocol):
    """Connections that can be ended while something waits on them."""

    def cut(self) -> None:
        """End what waits; single calls can still be made, to take leave."""

    def close(self) -> None:
        """Close what is idle."""


class JitDemand:
    """GitHub's lists of jobs."""

    every_s = _LOOK_S

    def __init__(self, source: JitSource) -> None:
        self._source = source

    def begin(self) -> None:
        """Nothing: each question is a look."""

    def end(self) -> None:
        """Nothing."""

    def heard(self, repository: str) -> None:
        """See `WantsRunners`."""
        self._source.heard(repository)

    def wanted(self, old_busy: int) -> Wanted:
        """See `WantsRunners`."""
        return self._source.wanted(old_busy)


class ScaleSetDemand:
    """The queue of a scale set, at which a thread listens."""

    every_s = _SETTLE_S

    def __init__(
        self, name: str, listener: Listener, news: Callable[[], None], connections: Cuttable
    ) -> None:
        """`news` makes it decide once more on jobs that were refused."""
        self._listener = listener
        self._news = news
        self._connections = connections
        self._thread = threading.Thread(target=listener.run, name=f"github:{name}", daemon=True)

    def begin(self) -> None:
        """See `WantsRunners`."""
        self._thread.start()

    def end(self) -> None:
        """See `WantsRunners`: ends the session, too."""
        self._listener.end()
        self._connections.cut()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        self._connections.close()

    def heard(self, repository: str) -> None:  # noqa: ARG002 - the queue tells of jobs
        """See `WantsRunners`."""
        self._news()

    def wanted(self, old_busy: int) -> Wanted:  # noqa: ARG002 - GitHub counts those that run
        """See `WantsRunners`."""
        return Wanted(self._listener.wanted, self._listener.problem)


class OnDemand:
    """Thread-safe. What runs goes on when this stops: the next process adopts it."""

    def __init__(
        self,
        name: str,
        demand: WantsRunners,
        fleet: Fleet,
        runners: Runners,
        *,
        clock: Clock,
        is_paused: Callable[[], bool],
        between_s: float = BETWEEN_S,
    ) -> None:
        self._name = name
        self._demand = demand
        self._fleet = fleet
        self._runners = runners
        self._clock = clock
        self._is_paused = is_paused
        self._between_s = between_s
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._unlisten: Callable[[], None] = lambda: None
        self.is_draining = False
        self.problem = ""
        """Why there are fewer runners than there should be; empty while all is well."""
        self._looked = threading.Condition()
        self._looks = 0

    def start(self) -> None:
        """Adopt what runs, and begin; raises `SmidrError` when that can't be."""
        self._runners.open()
        self._unlisten = self._runners.listen(self._wake.set)
        self._demand.begin()
        self._thread = threading.Thread(
            target=self._loop, name=f"github:{self._name}:runners", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End within seconds; runners go on."""
        self._ended.set()
        self._wake.set()
        self._unlisten()
        self._unlisten = lambda: None
        self._demand.end()
        if self._thread is not None:
            self._thread.join(_LAST_LOOK_S)
        self._runners.close()

    def drain(self) -> None:
        """Start no more, and let go of those that have no job."""
        if not self.is_draining:
            self.is_draining = True
            self._wake.set()

    @property
    def takes_jobs(self) -> bool:
        """Whether more runners may be started."""
        return not (self.is_draining or self._is_paused() or self._ended.is_set())

    def heard(self, repository: str) -> None:
        """Something happened to a job there, or was approved: look soon."""
        self._demand.heard(repository)
        self._wake.set()

    def wake(self) -> None:
        """There is news: look soon."""
        self._wake.set()

    def settle(self, timeout_s: float) -> bool:
        """Look now; whether a look that began after this call came to its end in time."""
        with self._looked:
            enough = self._looks + 2  # one may be at work
            while self._looks < enough and not self._ended.is_set():
                self._wake.set()
                if not self._looked.wait(timeout_s):
                    return False
            return not self._ended.is_set()

    def alive(self) -> list[LocalRunner]:
        """The runners whose processes run."""
        return [item for item in self._runners.running().values() if item.is_alive]

    def described(self) -> list[str]:
        """The same, a line each."""
        return [
            f"runner {item.name}: {item.state}"
            + (f", {printable(item.job)[:_JOB]}" if item.job else "")
            for item in self.alive()
        ]

    @property
    def expected_builds(self) -> int:
        """Runners whose job is still to come."""
        return sum(item.state is not RunnerState.BUSY for item in self.alive())

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return any(item.state is RunnerState.BUSY for item in self.alive())

    def told(self) -> Told:
        """What it does, in words and figures."""
        seen = self._fleet.status
        states = [item.state for item in self.alive()]
        counts = {str(state): states.count(state) for state in RunnerState if state != "exited"}
        counts |= {"wanted": seen.wanted, "free": seen.free}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        version = self._runners.version
        shown = f"runner {version}" if version else ""
        detail = "; ".join(filter(None, (self.problem, said, shown)))
        return Told("waiting" if self.problem else "asking", detail, counts, version)

    def look(self) -> float:
        """Do all that is to be done now; seconds until the next look."""
        if not self.takes_jobs:
            if self.is_draining:
                self._fleet.release_idle()
            self._fleet.settle(0, may_start=False)
            self.problem = ""
            return self._demand.every_s
        busy, fresh = self._busy()
        try:
            found = self._demand.wanted(len(busy))
        except RateLimitedError as error:
            self._fleet.settle(0, may_start=False)  # what ended here is cleaned up all the same
            self.problem = error.message
            return max(error.after_s, self._demand.every_s)
        self._fleet.settle(found.runners, counted=busy if found.counts_busy else ())
        self.problem = found.problem or self._fleet.status.reason
        return min(self._demand.every_s, _FRESH_S) if fresh else self._demand.every_s

    def _loop(self) -> None:
        while not self._ended.is_set():
            self._wake.clear()
            wait_s = _LOOK_S
            try:
                wait_s = self.look()
            except SmidrError as error:
                if str(error) != self.problem:
                    log.warning("%s", error)
                self.problem = str(error)
            except Exception as error:
                log.exception("runners of %s", self._name)
                self.problem = f"a fault of smidr's: {type(error).__name__}"
            with self._looked:
                self._looks += 1
                self._looked.notify_all()
            if self._ended.wait(self._between_s):
                return
            self._wake.wait(max(wait_s - self._between_s, 0.0))

    def _busy(self) -> tuple[list[str], bool]:
        """Runners that are at work for a while, and whether others are since a moment ago."""
        now = self._clock.now()
        busy = [item for item in self.alive() if item.state is RunnerState.BUSY]
        old = [i.name for i in busy if (now - i.changed_at).total_seconds() >= _FRESH_S]
        return old, len(old) < len(busy)
