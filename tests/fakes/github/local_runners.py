"""Official runners of this host that are only states, moved by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from smidr_ci.clock import Clock
from smidr_ci.errors import ConflictError, HostError
from smidr_ci.forges.github.runners.ports import LocalRunner, Room, RunnerState
from tests.fakes.github.runners import config_of

__all__ = ["FakeLocalRunners"]


@dataclass
class FakeLocalRunners:
    """Implements `ports.Runners`; it stays when an agent is killed, as processes do."""

    clock: Clock
    slots: int = 2
    shortage: str = ""
    fails: int = 0
    """How many of the next starts fail."""
    started: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    known: dict[str, LocalRunner] = field(default_factory=dict)
    changed: list[Callable[[], None]] = field(default_factory=list)
    is_open: bool = False
    version: str = "2.340.0"

    def __post_init__(self) -> None:
        self.condition = threading.Condition()

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def start(self, name: str, encoded_jit_config: str, labels: Sequence[str]) -> None:
        with self.condition:
            if self.fails:
                self.fails -= 1
                raise HostError("no such program")
            if name in self.known:
                raise ConflictError(f"there is {name} already")
            assert config_of(encoded_jit_config)["AgentName"] == name
            now = self.clock.now()
            self.known[name] = LocalRunner(
                name, RunnerState.STARTING, started_at=now, changed_at=now, labels=tuple(labels)
            )
            self.started.append(name)
            self.labels.append(tuple(labels))
            self.condition.notify_all()

    def running(self) -> Mapping[str, LocalRunner]:
        with self.condition:
            return dict(self.known)

    def capacity(self) -> Room:
        with self.condition:
            alive = sum(item.is_alive for item in self.known.values())
        if self.shortage:
            return Room(0, self.shortage, is_short=True)
        free = max(self.slots - alive, 0)
        return Room(free, "" if free else "all slots are taken")

    def stop(self, name: str) -> None:
        with self.condition:
            if self.known.pop(name, None) is not None:
                self.stopped.append(name)
            self.condition.notify_all()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.changed.append(changed)
        return lambda: self.changed.remove(changed)

    # What tests do.

    def go(self, name: str, state: RunnerState, **changes: Any) -> None:
        """Another state, now."""
        with self.condition:
            old = self.known[name]
            had_job = old.had_job or state is RunnerState.BUSY
            now: dict[str, Any] = {"changed_at": self.clock.now(), "had_job": had_job, **changes}
            self.known[name] = replace(old, state=state, **now)
            self.condition.notify_all()
        for changed in list(self.changed):
            changed()

    def exit(self, name: str, code: int | None, **changes: Any) -> None:
        """Its process is gone."""
        self.go(name, RunnerState.EXITED, exit_code=code, **changes)

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
        with self.condition:
            assert self.condition.wait_for(is_so, timeout_s), (self.started, self.stopped)

    @property
    def alive(self) -> list[str]:
        return [item.name for item in self.running().values() if item.is_alive]
