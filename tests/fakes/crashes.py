"""Processes that die by SIGKILL at a chosen step of a build, and others that go on after them.

Each life is a forked process with a real store, real kernel locks and a real pipeline; its steps
are its changes of files, its transactions, and what it asks of the engine. Only the engine is a
fake, and outlives them all.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine as SqlEngine

from smidr_ci.agent.recovery import recover, remove_leftovers
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.host import Host
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.order import Order
from smidr_ci.builds.pipeline import drive
from smidr_ci.builds.views import record_as_dict
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.locks import is_locked
from tests.fakes.agent_bench import PROJECT
from tests.fakes.bench import Bench
from tests.fakes.clock import FakeClock
from tests.fakes.disk_runtime import DiskRuntime
from tests.fakes.runtime import FakeContainer

__all__ = ["CrashSite", "Steps", "die"]

importlib.import_module("smidr_ci.builds.diagnose")  # else each child would for itself
_CHANGES = frozenset(
    {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "subprocess.Popen"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Program = Callable[[FakeContainer], int]


def die() -> None:
    """By SIGKILL; does not return."""
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """Counts what this process does, and lets `fate` happen before step number `die_at`."""

    def __init__(self, die_at: int | None = None, fate: Callable[[], None] = die) -> None:
        self.count = 0
        self.die_at = die_at
        self._fate = fate
        self._apart = threading.local()
        self._last = ("", "")

    def step(self, *_: object) -> None:
        """One more; not back when it is the last."""
        if getattr(self._apart, "is_open", False):
            return
        self.count += 1
        if self.count == self.die_at:
            with self.apart():
                self._fate()

    def hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook (PEP 578)."""
        place = str(arguments[0]) if arguments else ""
        if name == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            is_change = place.startswith("/") and place != os.devnull
        else:
            # Names without a path are those of a tree that is deleted, one by one.
            is_change = name in _CHANGES and (place.startswith("/") or name == "os.rename")
        # Many files that appear under one name, in one step; and the engine's own. A workspace
        # tries one number after the other.
        is_again = (name, place) == self._last
        if is_change and not is_again and "/.driver-" not in place and "/engine/" not in place:
            self._last = (name, place)
            self.step()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What this thread does meanwhile is not the process's but somebody else's."""
        self._apart.is_open = True
        try:
            yield
        finally:
            self._apart.is_open = False


@dataclass
class CrashSite:
    """A home, a project and an engine; `program` is what a build's container does."""

    root: Path
    program: Program
    order: dict[str, Any] = field(default_factory=dict)
    """Changes of the order."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More of `agent.yaml`."""
    fate: Callable[[], None] = die
    """What happens to a process at its last step."""
    bench: Bench = field(init=False)
    lives: int = 0

    def __post_init__(self) -> None:
        self.bench = Bench(self.root)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def begin(self, die_at: int | None = None) -> int | None:
        """A process that takes a build and drives it; its steps, or None when it died.

        The record's `requested_by` tells the step.
        """

        def work(host: Host) -> None:
            order = self.order_of(f"step {die_at}")
            record, claim = enlist(host, request_for(host, order), order)
            drive(host, record, claim, CancelToken(), SilentObserver())

        return self._live(work, die_at)

    def order_of(self, requested_by: str) -> Order:
        """What a client asks for."""
        fields = {
            "config_text": PROJECT,
            "config_name": "smidr.yaml",
            "directory": self.bench.project,
            "is_confined": False,
            "requested_by": requested_by,
        }
        return Order(customer="acme", **{**fields, **self.order})

    def go_on(self, die_at: int | None = None) -> int | None:
        """A process that goes on with what was left, as an agent does; its steps, or None."""

        def work(host: Host) -> None:
            for record, claim in recover(host):
                cancel = CancelToken()
                if record.cancel_reason:
                    cancel.cancel(record.cancel_reason)
                drive(host, record, claim, cancel, SilentObserver())
            remove_leftovers(host)

        return self._live(work, die_at)

    def change(self, **fields: object) -> None:
        """Change the records of builds that nobody drives."""

        def work(host: Host) -> None:
            for orphan in host.store.find_orphans():
                host.store.update(orphan.build_id, **fields)

        self._live(work, None)

    @property
    def engine(self) -> Path:
        """Where the engine keeps a file for each container."""
        return self.root / "engine"

    def records(self) -> list[dict[str, Any]]:
        """All records, the oldest first, with what is left of each."""

        def work(host: Host) -> None:
            listed = host.store.list(limit=1000)
            whole = [record_as_dict(host.store.get(item.build_id)) for item in reversed(listed)]
            self._answer.write_text(json.dumps(whole))

        self._live(work, None)
        found: list[dict[str, Any]] = json.loads(self._answer.read_text())
        return found

    def meanwhile(self) -> None:
        """Containers run on while no process looks."""
        self._runtime(Steps()).run_all()

    def left(self) -> list[str]:
        """What no build that is over may leave: containers, workspaces, locks, half-done things."""
        containers = [handle.build_id for handle in self._runtime(Steps()).list_builds()]
        patterns = ("artifacts/*/.collecting-*", "builds/*/.[!sc]*")
        files = [path for pattern in patterns for path in self.home.glob(pattern)]
        locks = [path for path in self.home.rglob("*.lock") if is_locked(path)]
        return [*containers, *map(str, (*files, *locks))]

    def workspaces(self) -> list[Path]:
        """All that are there."""
        return list(self.home.glob("workspaces/*/[0-9]*"))

    @property
    def _answer(self) -> Path:
        return self.root / "answer.json"

    def _runtime(self, steps: Steps) -> DiskRuntime:
        def program(container: FakeContainer) -> int:
            with steps.apart():
                return self.program(container) if container.spec.role == "build" else 0

        return DiskRuntime(self.engine, program, steps.step)

    def _host(self, steps: Steps) -> Host:
        limits = {
            "min_free_disk": 1,
            "min_free_disk_percent": 0,
            "max_memory_pressure": 0,
            "kept_workspaces_count": 1000,
        }
        host = self.bench.host(AgentConfig.model_validate({"limits": limits, **self.settings}))
        clock = FakeClock()
        clock.advance(timedelta(hours=self.lives).total_seconds())
        found = Host(host.home, host.agent, host.environ, clock)
        vars(found).update(vars(host) | {"clock": clock, "runtime": self._runtime(steps)})
        return found

    def _live(self, work: Callable[[Host], None], die_at: int | None) -> int | None:
        """Steps that it took; None when it died as told."""
        self.lives += 1
        told = self.root / "told.txt"
        child = os.fork()
        if child == 0:
            _be(work, self._host, Steps(die_at, self.fate), told)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert os.WEXITSTATUS(status) == 0, told.read_text()
        return int(told.read_text())


def _be(
    work: Callable[[Host], None], host_for: Callable[[Steps], Host], steps: Steps, told: Path
) -> None:
    """The life of a child; does not return."""
    code = 1
    try:
        host = host_for(steps)
        host.store.list(limit=1)
        event.listen(SqlEngine, "commit", steps.step)
        sys.addaudithook(steps.hear)
        work(host)
        with steps.apart():
            told.write_text(str(steps.count))
        code = 0
    except BaseException:  # noqa: BLE001 - the parent shall hear of it
        with steps.apart():
            told.write_text(traceback.format_exc())
    finally:
        os._exit(code)
