"""An agent in this process on a `Bench`: real store, scheduler and pipeline; no engine, no BitBake.

A "container" waits until the test lets it go on, then copies what a build would leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from smidr_ci.agent.service import Agent
from smidr_ci.agent.settings import Settings
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildView
from smidr_ci.config.agent import AgentConfig
from tests.fakes.bench import Bench
from tests.fakes.runtime import FakeContainer, FakeEngine, FakeRuntime

__all__ = ["PROJECT", "AgentBench"]

PROJECT = """\
name: project
build: {image: core-image-minimal}
layers:
  - {name: bitbake, path: bitbake}
  - {name: core, path: core}
"""

_WAIT_S = 30.0


@dataclass
class AgentBench:
    """Agents, one after the other, on the same home and the same "engine"."""

    root: Path
    limits: dict[str, Any] = field(default_factory=dict)
    may_end: threading.Event = field(default_factory=threading.Event)
    engine: FakeEngine = field(default_factory=FakeEngine)
    bench: Bench = field(init=False)

    def __post_init__(self) -> None:
        self.bench = Bench(self.root)

    def host(self) -> Host:
        """A host as a new process would open it."""
        limits = {"min_free_disk": 1, "min_free_disk_percent": 0, "max_memory_pressure": 0}
        agent = AgentConfig.model_validate({"limits": {**limits, **self.limits}})
        host = self.bench.host(agent)
        runtime = FakeRuntime(self._program, self.engine)
        vars(host).update(
            runtime=runtime, engine=SimpleNamespace(reach=lambda: None, load=lambda: None)
        )
        return host

    def agent(self, finished: Callable[[BuildRecord], object] = lambda _: None) -> Agent:
        """An agent that was not started yet."""
        return Agent(Settings(self.host()), [finished])

    def order(self, customer: str = "acme", **changes: Any) -> Order:
        """An order that works."""
        fields = {"config_text": PROJECT, "config_name": "smidr.yaml", "is_confined": False}
        return Order(customer=customer, directory=self.bench.project, **{**fields, **changes})

    def wait(self, agent: Agent, build_id: str, until: Callable[[BuildView], bool]) -> BuildView:
        """The first view of a build that fits; fails after thirty seconds."""
        changed = threading.Event()
        unsubscribe = agent.subscribe(build_id, changed.set)
        try:
            while not until(view := agent.view(build_id)):
                assert changed.wait(_WAIT_S), view
                changed.clear()
            return view
        finally:
            unsubscribe()

    def finish(self, agent: Agent, build_id: str) -> BuildRecord:
        """The final record."""
        return self.wait(agent, build_id, lambda view: view.record.state.is_final).record

    def _program(self, container: FakeContainer) -> int:
        if container.spec.role == "build":
            while not self.may_end.wait(0.01):
                if container.stopped.is_set():
                    return 1
        return self.bench.program(container)
