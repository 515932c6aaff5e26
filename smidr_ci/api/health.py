"""Whether the agent can do its work; asked often, so answers are kept for some seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from smidr_ci.api.operations import AgentPort
from smidr_ci.builds.store import BuildStore
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import SmidrError

__all__ = ["Health"]

_KEPT_S: Final = 5.0


class Health:
    """Thread-safe; `check_engine` raises `SmidrError` when the container engine does not answer."""

    def __init__(
        self,
        agent: AgentPort,
        store: BuildStore,
        check_engine: Callable[[], object],
        clock: Clock | None = None,
    ) -> None:
        self._agent = agent
        self._checks: dict[str, Callable[[], object]] = {
            "the build history can't be read": lambda: store.list(limit=1),
            "the container engine does not answer": check_engine,
        }
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._faults: tuple[str, ...] = ("the agent has only just started",)

    def problems(self) -> tuple[str, ...]:
        """Why the agent is not ready for builds, in words without names or paths.

        Blocks while it looks; whoever asks meanwhile gets what was found before, so that an
        engine that hangs takes one thread and not all.
        """
        draining = ("the agent drains",) if self._agent.status().is_draining else ()
        if self._lock.acquire(blocking=False):
            try:
                if self._clock.monotonic() - self._asked >= _KEPT_S:
                    self._faults = tuple(self._look())
                    self._asked = self._clock.monotonic()
            finally:
                self._lock.release()
        return (*draining, *self._faults)

    def _look(self) -> list[str]:
        faults = []
        for fault, check in self._checks.items():
            try:
                check()
            except SmidrError:
                faults.append(fault)
        return faults
