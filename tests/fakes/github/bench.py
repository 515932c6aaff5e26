"""Builds that are reported to the fake: service, outbox, reporter and deliverer together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smidr_ci.agent.outbox import Outbox
from smidr_ci.builds.database import Database
from smidr_ci.builds.model import BuildState, StageRecord
from smidr_ci.builds.order import Order
from smidr_ci.forges.github.check_delivery import CheckDeliverer
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.reporter import CheckReporter
from smidr_ci.forges.github.targets import CheckNames, CheckTarget, Targets
from smidr_ci.home import Home
from tests.fakes.build_service import FakeBuildService
from tests.fakes.github.room import Room
from tests.fakes.github.state import SHA

__all__ = ["PREFIX", "CheckBench", "finding"]

PREFIX = "github:lab:"
TARGET = CheckTarget("acme/bsp", SHA, "smidr / qemux86-64", "https://ci.acme.example/b/42")


def finding(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "category": "compile",
        "severity": "error",
        "message": f"oe_runmake failed ({number})",
        "recipe": f"foo{number}",
        "task": "do_compile",
        "repo_path": f"recipes/foo/foo_{number}.bb",
        "line": number + 1,
        **changes,
    }


class CheckBench:
    """One agent's parts; `restart` is what a new process would do."""

    def __init__(self, room: Room, folder: Path, *, is_app: bool = True) -> None:
        self.room = room
        self.home = Home(folder)
        self.service = FakeBuildService(self.home)
        self.database = Database(folder / "outbox.db")
        self._is_app = is_app
        self._start()

    def _start(self) -> None:
        client: GitHubClient = self.room.app() if self._is_app else self.room.plain()
        self.client = client
        self.targets = Targets(self.home, "lab")
        self.names = CheckNames(self.home, "lab")
        self.deliverer = CheckDeliverer(client, self.service.view, over=self.targets.remove)
        self.outbox = Outbox(self.database, self.room.clock, jitter=lambda: 0.0)
        self.outbox.register(f"{PREFIX}check:", self.deliverer)
        self.reporter = CheckReporter(
            PREFIX,
            self.service,
            self.outbox,
            self.targets,
            self.names,
            clock=self.room.clock,
            shows_progress=self._is_app,
        )
        self.outbox.start()
        self.reporter.start()

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self.reporter.stop()
        assert self.outbox.stop()

    def close(self) -> None:
        self.stop()
        self.database.close()
        self.service.close()

    def build(self, target: CheckTarget = TARGET, **order: Any) -> str:
        """A queued build that is reported."""
        made = Order(
            customer="acme",
            config_text="name: demo\n",
            config_name="smidr.yaml",
            directory=self.home.root,
            targets=("core-image-minimal",),
            **order,
        )
        build_id = self.service.submit(made).build_id
        source = self.home.builds / build_id / "source"
        source.mkdir()
        (source / "smidr.yaml").write_text("name: demo\n")
        record = self.service.store.get(build_id)
        order_now = {**record.order, "directory": str(source)}
        self.service.change(build_id, order=order_now)
        self.reporter.begin(build_id, target)
        return build_id

    def go(self, build_id: str, state: BuildState, **fields: Any) -> None:
        """Move the build on by one stage."""
        record = self.service.store.get(build_id)
        now = datetime.now(UTC)
        stages = (*record.stages, StageRecord(str(state), now))
        self.service.change(build_id, state=state, stages=stages, started=now, **fields)

    def fail(self, build_id: str, count: int, **fields: Any) -> None:
        """Let it fail with so many findings."""
        found = tuple(finding(number) for number in range(count))
        values = {"findings": found, "exit_code": 1, "ended": datetime.now(UTC), **fields}
        self.service.change(build_id, state=BuildState.FAILED, **values)

    def check(self) -> dict[str, Any]:
        """The only check run that there is."""
        with self.room.server.lock:
            (run,) = self.room.server.state.checks.values()
            return dict(run)

    def wait_for(self, **values: Any) -> dict[str, Any]:
        """Until the only check run has these values; what failed is tried again at once."""
        state = self.room.server.state

        def is_so() -> bool:
            runs = list(state.checks.values())
            return len(runs) == 1 and all(runs[0][key] == item for key, item in values.items())

        self.until(is_so)
        return self.check()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Deliver, with retries at once, until this is so."""
        server = self.room.server
        for _ in range(100):
            with server.lock:
                if server.lock.wait_for(is_so, 0.2):
                    return
            self.outbox.wake()
            self.outbox.flush(0.5)
        seen = [f"{item.method} {item.path}" for item in server.requests[-20:]]
        raise AssertionError(f"it did not happen; the last requests: {seen}")

    def settle(self) -> None:
        """Until the reporter has seen all and all is delivered."""
        self.until(lambda: self.reporter.is_idle)
        assert any(self.outbox.flush(5) for _ in range(10))
