"""Runners on demand against the fake GitHub, with local runners that are only states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smidr_ci.builds.host import Host
from smidr_ci.config.agent import AgentConfig
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.runners.assembly import Surroundings, make_on_demand
from smidr_ci.forges.github.runners.on_demand import OnDemand
from smidr_ci.forges.github.runners.options import RunnerOptions
from smidr_ci.forges.github.runners.ports import Runners, RunnerState
from smidr_ci.forges.github.runs import WorkflowRuns
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Limits
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.seats import Seats
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.home import Home
from tests.fakes.github.local_runners import FakeLocalRunners
from tests.fakes.github.room import Room
from tests.fakes.github.state import APP_ID

__all__ = ["SMIDR_WORKFLOW", "WORKFLOW", "DemandBench"]

WORKFLOW = ".github/workflows/image.yml"
SMIDR_WORKFLOW = """
on: push
jobs:
  image:
    runs-on: [self-hosted, smidr]
    steps:
      - uses: actions/checkout@v5
      - uses: smidr/build@v1
        with: {config: smidr.yaml}
"""


class DemandBench:
    """One agent's runners of one registration; `restart` is what a new process would do."""

    def __init__(
        self,
        room: Room,
        *,
        url: str = "",
        config: Any = None,
        local: Callable[[], Runners] | None = None,
        **settings: Any,
    ) -> None:
        """`local` makes other runners than those that are only states."""
        self.room = room
        self.server = room.server
        self.home = Home(room.folder)
        self.config = config or {}
        self.runners = FakeLocalRunners(room.clock)
        self._local = local or (lambda: self.runners)
        self.held: list[tuple[str, str, str]] = []
        self.refusal: Callable[[int], str | None] = lambda _count: None
        app = {"app_id": str(APP_ID), "app_key_file": str(room.key_file())}
        self.registration = Registration(
            "lab", "github", url or room.server.url, "", settings={**app, **settings}
        )
        Registrations(self.home).save(self.registration)
        self.made = self._make()

    def _make(self) -> OnDemand:
        self.client: GitHubClient = self.room.app()
        host = Host(self.home, AgentConfig.model_validate(self.config), {}, clock=self.room.clock)
        seats = Seats(
            self._refusal,
            lambda: self.made.expected_builds,
            clock=self.room.clock,
        )
        self.approvals = Approvals(self.home, "lab")
        site = Site.of(self.registration.url)
        around = Surroundings(
            registration=lambda: self.registration,
            site=site,
            client=self.client,
            runs=WorkflowRuns(site, self.client),
            approvals=self.approvals,
            parts=Parts(lambda: host, _unused(), _unused(), seats),
            tls=TlsFiles(),
            hold=lambda *held: self.held.append(held),
            poll=Limits(connect_s=5, pause_s=5, whole_s=10),
            pause=self._pause,
            between_s=0.01,
        )
        self.is_ended = False
        made = make_on_demand(around, RunnerOptions.of(self.registration), self._runners)
        assert made is not None
        return made

    def _runners(self, registration: str, host: Any, downloads: Any) -> Runners:
        del registration, host, downloads
        return self._local()

    def _refusal(self, count: int) -> str | None:
        return self.refusal(count)

    def _pause(self, seconds: float) -> bool:
        return self.room.pause(seconds) or self.is_ended

    # An agent's life.

    def start(self) -> None:
        self.made.start()

    def look(self) -> float:
        """One whole look, by the agent's own thread if it runs; seconds until the next."""
        if not self.runners.is_open:
            return self.made.look()
        assert self.made.settle(20)
        return 0.0

    def stop(self) -> None:
        self.is_ended = True
        self.made.stop()

    def kill(self) -> None:
        """As kill -9 does: GitHub hears nothing of it."""
        self.server.is_down = True
        self.stop()
        self.server.is_down = False

    def restart(self) -> None:
        self.made = self._make()

    def close(self) -> None:
        self.stop()
        self.client.sender.end()

    # What happens at GitHub and on the host.

    def job(
        self, number: int = 555, *, workflow: str = SMIDR_WORKFLOW, **changes: Any
    ) -> dict[str, Any]:
        """A queued job of a run, whose workflow is at its commit."""
        state = self.server.state
        with self.server.lock:
            run = changes.pop("run", {})
            if number not in state.runs:
                state.add_run(number, status="queued", **run)
            sha = state.runs[number]["head_sha"]
            state.runners.files.setdefault(("acme/bsp", sha, WORKFLOW), workflow.encode())
            values = {"status": "queued", "runner_name": None, **changes}
            return state.add_job(number, **values)

    def listen(self, name: str) -> None:
        """A runner has connected."""
        with self.server.lock:
            self.server.state.runners.listen(name)
        self.runners.go(name, RunnerState.IDLE)

    def take(self, name: str, job: dict[str, Any] | None = None) -> None:
        """A runner has got a job."""
        with self.server.lock:
            self.server.state.runners.begin(name)
            if job is not None:
                job.update(status="in_progress", runner_name=name)
        self.runners.go(name, RunnerState.BUSY)

    def finish(self, name: str, job: dict[str, Any] | None = None) -> None:
        """Its job is over, and so is the runner."""
        with self.server.lock:
            self.server.state.runners.finish(name)
            if job is not None:
                job.update(status="completed", conclusion="success")
        self.runners.exit(name, 0)

    @property
    def remote(self) -> set[str]:
        """Names of the runners that GitHub knows."""
        with self.server.lock:
            return {item["name"] for item in self.server.state.runners.known.values()}


def _unused() -> Any:
    """Runners on demand neither order builds nor report them."""
    return None
