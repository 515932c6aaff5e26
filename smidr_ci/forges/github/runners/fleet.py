"""Keeps as many runners as are wanted: starts them, removes what ended, finds what got lost.

Nothing is remembered that could not be found again: GitHub has its list, the host its processes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.runners.names import RunnerNames
from smidr_ci.forges.github.runners.pace import Backoff
from smidr_ci.forges.github.runners.ports import (
    EXIT_MEANINGS,
    LocalRunner,
    Runners,
    RunnerState,
)
from smidr_ci.forges.github.runners.registrar import Registrar
from smidr_ci.forges.github.runners.room import RoomKeeper

__all__ = ["Fleet", "FleetStatus"]

log = logging.getLogger(__name__)

_NAME_TRIES: Final = 3
_IDLE_S: Final = 300.0
"""How long a runner may wait for a job that nobody waits for any more."""
_STALE_IDLE_S: Final = 900.0
"""And for one that GitHub says there is, but does not bring."""
_SWEEP_S: Final = 300.0
_TAKEN: Final = 409
_DEPRECATED: Final = 7
_DEPRECATED_S: Final = 600.0
_NO_JOB_S: Final = 30.0
_LONGEST_S: Final = 900.0
_NOT_LET_IN: Final = frozenset({401, 403, 404})
_SOON_S: Final = 60.0
_MAKES_S: Final = 15.0
_REFUSED_S: Final = 60.0
_AT_LEAST_S: Final = {403: _REFUSED_S, 404: _REFUSED_S, 422: 600.0, 429: _REFUSED_S}


@dataclass(frozen=True)
class FleetStatus:
    """One moment."""

    starting: int = 0
    idle: int = 0
    busy: int = 0
    wanted: int = 0
    free: int = 0
    """How many more could be started."""
    reason: str = ""
    """Why there are fewer than wanted."""


class Fleet:
    """The runners of one registration; one thread calls `settle`, any may read `status`."""

    def __init__(
        self,
        runners: Runners,
        registrar: Registrar,
        names: RunnerNames,
        rooms: RoomKeeper,
        clock: Clock,
        labels: tuple[str, ...] = (),
    ) -> None:
        self._runners = runners
        self._registrar = registrar
        self._names = names
        self._rooms = rooms
        self._clock = clock
        self._labels = labels
        self._makes = Backoff(clock, _MAKES_S, 3600.0)
        self._jobs = Backoff(clock, _NO_JOB_S, _LONGEST_S)
        self._next_sweep = 0.0
        self._began: set[str] = set()
        self.status = FleetStatus()

    def settle(self, wanted: int, *, may_start: bool = True, counted: Collection[str] = ()) -> None:
        """Come as near as can be to so many runners that are alive; trouble is in `status`.

        `counted` are runners at work that count among the wanted ones, unless they have ended.
        """
        self._bury()
        if self._clock.monotonic() >= self._next_sweep:
            self._try_to_sweep()
        self._trim(wanted)
        room = self._rooms.room()
        alive = {item.name for item in self._alive()}
        wanted -= sum(name not in alive for name in counted)
        missing = max(wanted - len(alive), 0) if may_start else 0
        reason = self._why_not() if missing else ""
        started = 0
        if missing and not reason:
            started, reason = self._grow(min(missing, room.free))
            room = self._rooms.room() if started else room
            if not reason and started < missing:
                reason = room.reason or "the host has no more room"
        self._tell(wanted, room.free, reason)

    def sweep(self) -> None:
        """Delete registrations of runners that this host made and does not have any more.

        Raises `ForgeError`.
        """
        self._next_sweep = self._clock.monotonic() + _SWEEP_S
        known = self._runners.running()
        for remote in self._registrar.listed():
            if not self._names.is_ours(remote.name) or remote.name in known:
                continue
            if remote.is_online or remote.is_busy:
                log.warning("the runner %s is at GitHub, and not on this host", remote.name)
            elif self._registrar.remove_listed(remote):
                log.info("removed the runner %s, which was lost", remote.name)

    def began(self, name: str) -> None:
        """GitHub says that a runner has got its job; from any thread."""
        if name in self._runners.running():
            self._began.add(name)

    def release_idle(self) -> None:
        """Let go of runners that have no job; what is busy goes on."""
        for item in self._alive():
            if item.state is not RunnerState.BUSY:
                self._release(item, is_last=True)

    def wait_s(self) -> float:
        """Seconds until something could be tried again that can't be tried now; 0 for nothing."""
        return max(self._makes.wait_s, self._jobs.wait_s)

    # Inside.

    def _try_to_sweep(self) -> None:
        try:
            self.sweep()
        except ForgeError as error:
            log.warning("can't look for lost runners: %s", error)
            self._sweep_soon()

    def _sweep_soon(self) -> None:
        self._next_sweep = min(self._next_sweep, self._clock.monotonic() + _SOON_S)

    def _alive(self) -> list[LocalRunner]:
        return [item for item in self._runners.running().values() if item.is_alive]

    def _bury(self) -> None:
        for item in list(self._runners.running().values()):
            if item.is_alive:
                continue
            had_job = item.had_job or item.name in self._began
            self._learn(item, had_job=had_job)
            if not (had_job and item.exit_code == 0):  # GitHub deletes those by itself
                self._remove_later_if_need_be(item)
            self._runners.stop(item.name)
            self._began.discard(item.name)

    def _learn(self, item: LocalRunner, *, had_job: bool) -> None:
        if had_job:
            self._jobs.worked()
            return
        meaning = EXIT_MEANINGS.get(-1 if item.exit_code is None else item.exit_code, "unknown")
        why = f"the runner {item.name} ended without a job (exit code {item.exit_code}: {meaning})"
        at_least_s = _NO_JOB_S
        if item.exit_code == _DEPRECATED:
            why = "GitHub takes no runner of this version any more"
            at_least_s = _DEPRECATED_S
        wait = self._jobs.failed(why, at_least_s)
        log.warning("%s; the next one in %.0f seconds", why, wait)

    def _remove_later_if_need_be(self, item: LocalRunner) -> None:
        try:
            self._registrar.remove(item.name)
        except ForgeError as error:
            log.info("%s stays at GitHub for now: %s", item.name, error)
            self._sweep_soon()

    def _trim(self, wanted: int) -> None:
        now = self._clock.now()
        alive = self._alive()
        idle = sorted(
            (item for item in alive if item.state is not RunnerState.BUSY),
            key=lambda item: item.changed_at,
        )
        surplus = len(alive) - wanted
        for item in idle:
            waited = (now - item.changed_at).total_seconds()
            is_stale = waited >= _STALE_IDLE_S
            if is_stale or (surplus > 0 and waited >= _IDLE_S):
                if self._release(item) and is_stale and surplus <= 0:
                    self._jobs.failed(f"{item.name} waited for a job that GitHub did not bring")
                surplus -= 1

    def _release(self, item: LocalRunner, *, is_last: bool = False) -> bool:
        """GitHub first: who has no registration can get no job, and who is busy keeps it.

        With `is_last` it goes also where GitHub does not let us in any more.
        """
        try:
            is_gone = self._registrar.remove(item.name)
        except ForgeError as error:
            log.info("can't remove the runner %s now: %s", item.name, error)
            is_gone = is_last and error.status in _NOT_LET_IN
        if is_gone:
            log.info("removed the runner %s, which had no job", item.name)
            self._runners.stop(item.name)
        return is_gone

    def _why_not(self) -> str:
        for backoff in (self._makes, self._jobs):
            if backoff.wait_s > 0:
                return f"{backoff.why}; again in {backoff.wait_s:.0f} seconds"
        return ""

    def _grow(self, count: int) -> tuple[int, str]:
        for started in range(count):
            try:
                self._start_one()
            except RateLimitedError as error:
                self._makes.failed(error.message, error.after_s)
                return started, error.message
            except ForgeError as error:
                # 422: GitHub will never take it as it is. 403: a permission is gone.
                self._makes.failed(error.message, _AT_LEAST_S.get(error.status, 0.0))
                log.warning("%s", error)
                return started, error.message
            except SmidrError as error:
                self._jobs.failed(error.message)
                log.warning("can't start a runner: %s", error)
                return started, error.message
            self._makes.worked()
        return count, ""

    def _start_one(self) -> None:
        name, config = self._registered()
        try:
            self._runners.start(name, config, self._labels)
        except SmidrError:
            self._forget(name)
            raise
        log.info("started the runner %s", name)

    def _registered(self) -> tuple[str, str]:
        """A name with its config. A taken name leads to another, some times."""
        for attempt in range(1, _NAME_TRIES + 1):
            name = self._names.fresh()
            try:
                return name, self._registrar.generate(name)
            except ForgeError as error:
                if error.status != _TAKEN or attempt == _NAME_TRIES:
                    # Perhaps it was made all the same, and only the answer was lost.
                    self._sweep_soon()
                    raise
        raise AssertionError("unreachable")

    def _forget(self, name: str) -> None:
        try:
            self._registrar.remove(name)
        except ForgeError as error:
            log.info("%s stays at GitHub for now: %s", name, error)

    def _tell(self, wanted: int, free: int, reason: str) -> None:
        states = [item.state for item in self._alive()]
        self.status = FleetStatus(
            starting=states.count(RunnerState.STARTING),
            idle=states.count(RunnerState.IDLE),
            busy=states.count(RunnerState.BUSY),
            wanted=wanted,
            free=free,
            reason=reason,
        )
