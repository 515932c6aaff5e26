"""Runners that outlive their agent, and what a crash leaves of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.errors import ConflictError
from smidr_ci.forges.github.runners.ports import RunnerState
from smidr_ci.forges.github.runners.slots import Slots
from tests.fakes.child import child, kill, line_from
from tests.fakes.github.runner_bench import RunnerBench, wait_for

EXITED = RunnerState.EXITED


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RunnerBench]:
    made = RunnerBench(tmp_path)
    yield made
    made.close()


def test_the_next_agent_adopts_what_runs(bench: RunnerBench) -> None:
    first = bench.ready()
    busy, idle = bench.start(first), bench.start(first, "smidr-b")
    busy.tell("job a")
    before = bench.state(first, "smidr-a", RunnerState.BUSY)
    bench.leave()
    second = bench.supervisor()
    after = second.running()
    assert {name: item.state for name, item in after.items()} == {
        "smidr-a": RunnerState.BUSY,
        "smidr-b": RunnerState.IDLE,
    }
    assert after["smidr-a"].started_at == before.started_at
    assert (after["smidr-a"].job, after["smidr-a"].labels) == (before.job, before.labels)
    wait_for(lambda: second.capacity().free == 1)
    busy.tell("exit 0")
    idle.tell("exit 5")
    assert bench.state(second, "smidr-a", EXITED).exit_code == 0
    assert bench.state(second, "smidr-b", EXITED).exit_code == 5


def test_an_adopted_runner_takes_one_slot(bench: RunnerBench) -> None:
    slots = Slots()
    remote = bench.start(bench.ready(slots=slots))
    for _ in range(2):
        bench.leave()
        again = bench.ready(slots=slots)
        assert again.capacity().free == 2
    remote.tell("exit 0")
    wait_for(lambda: again.capacity().free == 3)


AGENT = """
import sys, threading
from pathlib import Path
from smidr_ci.forges.github.runners.ports import RunnerState
from tests.fakes.github.runner_bench import RunnerBench
from tests.fakes.github.runner_program import jit_config

bench = RunnerBench(Path(sys.argv[1]))
runners = bench.ready()
runners.start("smidr-a", jit_config(Path(sys.argv[2])), ["smidr"])
bench.state(runners, "smidr-a", RunnerState.BUSY)
print("busy", flush=True)
threading.Event().wait()
"""


def test_a_runner_does_not_feel_the_death_of_its_agent(bench: RunnerBench) -> None:
    remote = bench.remote("smidr-a")
    remote.tell("job image")
    with child(AGENT, bench.folder, remote.control) as agent:
        assert line_from(agent) == "busy"
        before = set(bench.processes()) - {agent.pid}
        kill(agent)
    after = bench.supervisor()
    found = after.running()["smidr-a"]
    assert (found.state, found.job, found.labels) == (RunnerState.BUSY, "image", ("smidr",))
    assert set(bench.processes()) == before
    with pytest.raises(ConflictError):
        after.start("smidr-a", "", [])
    remote.tell("done Succeeded", "exit 0")
    assert bench.state(after, "smidr-a", EXITED).exit_code == 0
    wait_for(lambda: not bench.processes())


def test_what_ended_while_there_was_no_agent_is_told_by_the_next(bench: RunnerBench) -> None:
    first = bench.ready()
    remote = bench.start(first)
    bench.leave()
    remote.tell("job a", "done Succeeded", "exit 0")
    wait_for(bench.place().exit.exists)
    second = bench.supervisor()
    ended = bench.state(second, "smidr-a", EXITED)
    assert (ended.exit_code, ended.had_job, ended.job) == (0, True, "a")
    assert second.capacity().free in {0, 3}  # not a slot


def test_an_end_that_was_wanted_goes_on_with_the_next_agent(bench: RunnerBench) -> None:
    bench.start(bench.ready())
    bench.leave()
    bench.place().stopping.touch()  # it died right after that
    second = bench.supervisor()
    assert second.running() == {}
    wait_for(lambda: not bench.place().path.exists())


def test_a_directory_without_a_note_is_removed_with_what_runs_in_it(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    (bench.place().path / "note.json").unlink()
    second = bench.supervisor()
    assert second.running() == {}
    assert not bench.place().path.exists()
    wait_for(lambda: not bench.processes())


def test_a_runner_whose_directory_was_removed_is_ended(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    bench.place().path.rename(bench.folder / "elsewhere")
    bench.supervisor()
    wait_for(lambda: not bench.processes())


def test_a_note_of_before_the_last_start_of_the_host_is_not_believed(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    keeper = json.loads(bench.place().keeper.read_text())
    # Another process has the number now: this one.
    bench.place().keeper.write_text(json.dumps({**keeper, "pid": os.getpid()}))
    second = bench.supervisor()
    # The real one is found by what it keeps.
    assert second.running()["smidr-a"].is_alive
    second.stop("smidr-a")
    wait_for(lambda: not bench.place().path.exists())


def test_what_a_removed_registration_left_goes_once_its_job_is_over(bench: RunnerBench) -> None:
    other = bench.ready(name="other")
    remote = bench.start(other)
    bench.leave()
    bench.ready()
    place = bench.place(registration="other")
    assert (place.path / "note.json").exists()
    assert place.keeper.exists()
    remote.tell("exit 0")
    wait_for(place.exit.exists)
    wait_for(lambda: len(bench.processes()) == 0)
    bench.set(environment=("OTHER",))  # reloaded: it looks again
    bench.supervisors[0].capacity()
    wait_for(lambda: not place.path.exists())
