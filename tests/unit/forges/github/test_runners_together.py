"""GitHub's side and this host's together: real processes, of a program like the official runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.ports import RunnerState
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.supervisor import Supervisor
from smidr_ci.forges.github.runners.watch import Timing
from tests.fakes.clock import FakeClock
from tests.fakes.github.demand_bench import DemandBench
from tests.fakes.github.room import Room
from tests.fakes.github.runner_bench import LONG_S, RunnerBench, wait_for
from tests.fakes.github.server import GitHubServer


class Together:
    """An agent of one registration, and the runners that its jobs get."""

    def __init__(self, room: Room, folder: Path, mode: str) -> None:
        self.server, self.room, self.mode = room.server, room, mode
        self.local = RunnerBench(folder, slots=2)
        self.server.state.runners.more = self._control
        settings = {"labels": ["smidr"]} if mode == "jit" else {"scale_set": "smidr-lab1"}
        self.agent = DemandBench(room, mode=mode, local=self._supervisor, **settings)
        self.jobs: list[dict[str, Any]] = []
        self.assigned = 0

    def _control(self, name: str) -> dict[str, Any]:
        return {"control": str(self.local.remote(name).control)}

    def _supervisor(self) -> Supervisor:
        bench = self.local
        installs = Installs(
            lambda: bench.agent.github.runners,
            bench.home.root / "official-runners",
            lambda: (),
            bench.host().clock,
        )
        bodies = {"process": bench.processes_of()}
        self.supervisor = Supervisor(
            "lab", bench.host, installs, bodies, Slots(), Timing(tick_s=0.05)
        )
        return self.supervisor

    def start(self) -> None:
        self.agent.start()
        wait_for(lambda: self.supervisor.capacity().free, "there is no runner to start")

    def restart(self) -> None:
        self.agent.restart()
        self.agent.start()

    def close(self) -> None:
        self.agent.close()
        self.local.close()

    def job(self) -> None:
        """One more waits."""
        self.jobs.append(self.agent.job())
        self._assign(+1)

    def _assign(self, more: int) -> None:
        self.assigned += more
        if self.mode == "jit":
            self.agent.made.heard("acme/bsp")
            return
        sets = self.server.scale_sets
        self.server.wait_until(lambda: bool(sets.sets) and sets.only.session is not None, LONG_S)
        with self.server.lock:
            sets.put(assigned=self.assigned)
            self.server.lock.notify_all()

    def runners(self, *states: RunnerState) -> list[str]:
        return [name for name, item in self.supervisor.running().items() if item.state in states]

    def one(self, *states: RunnerState) -> str:
        """The name of the only runner in these states, once there is one."""
        (name,) = self.wait(lambda: self.runners(*states))
        return str(name)

    def wait(self, what: Callable[[], Any]) -> Any:
        def look() -> Any:
            self.agent.made.wake()
            return what()

        return wait_for(look)

    def take(self, name: str) -> None:
        """GitHub gives this runner the first job that waits."""
        job = next(item for item in self.jobs if item["status"] == "queued")
        with self.server.lock:
            self.server.state.runners.begin(name)
            job.update(status="in_progress", runner_name=name)
        self.local.remote(name).tell("job image")
        self.local.state(self.supervisor, name, RunnerState.BUSY)

    def finish(self, name: str) -> None:
        """Its job is over, and it ends as the official runner does."""
        job = next(item for item in self.jobs if item["runner_name"] == name)
        with self.server.lock:
            self.server.state.runners.finish(name)
            job.update(status="completed", conclusion="success")
        self._assign(-1)
        if self.mode == "scale-set":  # GitHub tells it while the runner still cleans up
            messages = self.server.scale_sets.only.messages
            self.server.wait_until(lambda: not messages, LONG_S)
        self.local.remote(name).tell("done Succeeded", "exit 0")

    def is_gone(self, name: str) -> bool:
        return name not in self.supervisor.running() and name not in self.agent.remote


@pytest.fixture(params=["jit", "scale-set"])
def both(
    request: pytest.FixtureRequest, github: GitHubServer, tmp_path: Path
) -> Iterator[Together]:
    folder = tmp_path / "host"
    folder.mkdir()
    room = Room(github, tmp_path, FakeClock(datetime.now(UTC)))  # the processes' time is real
    made = Together(room, folder, request.param)
    try:
        yield made
    finally:
        made.close()


def test_a_job_gets_a_runner_and_leaves_nothing_behind(both: Together) -> None:
    both.start()
    both.job()
    name = both.one(RunnerState.IDLE)
    assert both.agent.remote == {name}
    both.take(name)
    both.finish(name)
    both.wait(lambda: both.is_gone(name))
    both.wait(lambda: not both.local.place(name).path.exists())
    both.agent.look()
    assert both.agent.remote == set()
    assert both.agent.made.told().state == "asking"


def test_two_jobs_run_side_by_side_and_the_third_comes_when_there_is_room(both: Together) -> None:
    both.start()
    for _ in range(3):
        both.job()
    first, second = both.wait(
        lambda: found if len(found := both.runners(RunnerState.IDLE)) == 2 else None
    )
    both.take(first)
    both.take(second)
    both.agent.look()
    assert len(both.agent.remote) == 2
    both.room.advance(15)  # GitHub's lists are believed again
    both.finish(first)
    third = both.one(RunnerState.IDLE)
    assert third not in {first, second}
    assert both.agent.remote == {second, third}


@pytest.mark.parametrize("code", [5, 7, 1])
def test_a_runner_that_ends_without_a_job_is_followed_later(both: Together, code: int) -> None:
    both.start()
    both.job()
    name = both.one(RunnerState.IDLE)
    both.local.remote(name).tell(f"exit {code}")
    both.wait(lambda: both.is_gone(name))
    both.agent.look()
    assert both.agent.remote == set()
    detail = both.agent.made.told().detail
    assert ("version" if code == 7 else "ended without a job") in detail
    if code != 7:  # which waits for another version
        both.room.advance(60)
        assert both.one(RunnerState.IDLE) != name


def test_runners_outlive_their_agent_and_are_adopted(both: Together) -> None:
    both.start()
    both.job()
    both.job()
    first, second = both.wait(
        lambda: found if len(found := both.runners(RunnerState.IDLE)) == 2 else None
    )
    both.take(first)
    both.agent.kill()
    both.restart()
    both.local.state(both.supervisor, first, RunnerState.BUSY)
    both.local.state(both.supervisor, second, RunnerState.IDLE)
    both.agent.look()
    assert both.agent.remote == {first, second}
    both.finish(first)
    both.wait(lambda: both.is_gone(first))
    both.agent.look()
    assert both.agent.remote == {second}


def test_a_runner_that_died_with_its_agent_is_cleaned_up(
    both: Together, github: GitHubServer
) -> None:
    both.start()
    both.job()
    name = both.one(RunnerState.IDLE)
    both.agent.kill()
    both.local.remote(name).tell("exit 1")
    wait_for(lambda: not _listens(both, name))
    with github.lock:
        github.state.runners.lose(name)
    both.restart()
    both.wait(lambda: both.is_gone(name))


def _listens(both: Together, name: str) -> bool:
    return not both.local.place(name).exit.exists()


def test_draining_waits_for_the_job_and_lets_go_of_the_rest(both: Together) -> None:
    both.start()
    both.job()
    both.job()
    first, second = both.wait(
        lambda: found if len(found := both.runners(RunnerState.IDLE)) == 2 else None
    )
    both.take(first)
    both.agent.made.drain()
    both.wait(lambda: both.is_gone(second))
    assert both.runners(RunnerState.BUSY) == [first]
    both.finish(first)
    both.wait(lambda: both.is_gone(first))
    assert not both.agent.made.is_busy
    assert both.agent.remote == set()
