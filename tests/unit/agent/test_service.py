"""The agent with real pipeline, store and scheduler; containers are fakes that wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import BusyError, ConfigError, UsageError
from tests.fakes.agent_bench import AgentBench


@pytest.fixture
def bench(tmp_path: Path) -> AgentBench:
    return AgentBench(tmp_path, limits={"max_concurrent_builds": 2})


def is_building(view: BuildView) -> bool:
    return view.record.state is BuildState.BUILDING


def test_an_order_becomes_a_build_that_completes(bench: AgentBench) -> None:
    bench.may_end.set()
    told: list[BuildRecord] = []
    agent = bench.agent(told.append)
    agent.start()
    queued = agent.submit(bench.order(requested_by="somebody"))
    assert (queued.state, queued.is_resumable) == (BuildState.QUEUED, True)
    final = bench.finish(agent, queued.build_id)
    assert (final.state, final.failure_message) == (BuildState.COMPLETED, "")
    assert [item.path for item in final.artifacts]
    agent.drain()
    assert agent.wait_until_ended(30)
    assert [item.build_id for item in told] == [queued.build_id]
    summary = bench.bench.root / "home" / "builds" / final.build_id / "summary.md"
    assert "completed" in summary.read_text()


def test_a_second_build_of_a_customer_waits_and_says_why(bench: AgentBench) -> None:
    agent = bench.agent()
    agent.start()
    first = agent.submit(bench.order())
    bench.wait(agent, first.build_id, is_building)
    second, other = agent.submit(bench.order()), agent.submit(bench.order("bravo"))
    view = bench.wait(agent, second.build_id, lambda view: bool(view.waiting_for))
    assert "acme" in view.waiting_for
    bench.wait(agent, other.build_id, is_building)
    status = agent.status()
    assert set(status.running) == {first.build_id, other.build_id}
    assert list(status.queued) == [second.build_id]
    bench.may_end.set()
    assert bench.finish(agent, second.build_id).state is BuildState.COMPLETED


def test_a_bad_order_is_refused_and_leaves_nothing(bench: AgentBench) -> None:
    agent = bench.agent()
    with pytest.raises(ConfigError):
        agent.submit(bench.order(config_text="name: [\n"))
    with pytest.raises(UsageError):
        agent.submit(bench.order(targets=("../etc",)))
    assert agent.status().queued == {}
    assert not list((bench.bench.root / "home" / "builds").glob("*"))


def test_a_full_queue_and_a_draining_agent_take_nothing(tmp_path: Path) -> None:
    bench = AgentBench(tmp_path, limits={"max_queued_builds": 1})
    agent = bench.agent()
    agent.submit(bench.order())
    with pytest.raises(BusyError):
        agent.submit(bench.order())
    agent.drain()
    with pytest.raises(BusyError):
        agent.submit(bench.order())


@pytest.mark.parametrize("level", [CancelLevel.INTERRUPT, CancelLevel.KILL])
def test_a_running_build_is_cancelled(bench: AgentBench, level: CancelLevel) -> None:
    agent = bench.agent()
    agent.start()
    build = agent.submit(bench.order())
    bench.wait(agent, build.build_id, is_building)
    asked = agent.cancel(build.build_id, "Not wanted.", level)
    assert asked.cancel_reason == "Not wanted."
    final = bench.finish(agent, build.build_id)
    assert (final.state, final.failure_message) == (BuildState.CANCELLED, "Not wanted.")
    assert agent.cancel(build.build_id, "Again.").cancel_reason == "Not wanted."
    left = [item for item in bench.engine.containers.values() if item.spec.role == "build"]
    assert left == []


def test_a_queued_build_is_cancelled_without_a_slot(bench: AgentBench) -> None:
    agent = bench.agent()
    agent.start()
    first = agent.submit(bench.order())
    bench.wait(agent, first.build_id, is_building)
    second = agent.submit(bench.order())
    agent.cancel(second.build_id, "Not wanted.")
    final = bench.finish(agent, second.build_id)
    assert (final.state, final.started) == (BuildState.CANCELLED, None)
    assert agent.status().running == (first.build_id,)
    bench.may_end.set()
    bench.finish(agent, first.build_id)


def test_a_drained_agent_ends_when_what_runs_is_over(bench: AgentBench) -> None:
    agent = bench.agent()
    agent.start()
    running = agent.submit(bench.order())
    waiting = agent.submit(bench.order(targets=("other-image",)))
    bench.wait(agent, running.build_id, is_building)
    agent.drain()
    assert not agent.wait_until_ended(0.05)
    bench.may_end.set()
    assert agent.wait_until_ended(30)
    assert agent.view(running.build_id).record.state is BuildState.COMPLETED
    assert agent.view(waiting.build_id).record.state is BuildState.QUEUED


def test_a_stop_leaves_builds_running_or_cancels_them_all(bench: AgentBench) -> None:
    agent = bench.agent()
    agent.start()
    running, waiting = agent.submit(bench.order()), agent.submit(bench.order())
    bench.wait(agent, running.build_id, is_building)
    agent.stop(cancel_builds=True)
    assert agent.wait_until_ended(30)
    for build in (running, waiting):
        assert agent.view(build.build_id).record.state is BuildState.CANCELLED


def test_bad_settings_are_not_taken_over(bench: AgentBench) -> None:
    agent = bench.agent()
    path = bench.bench.root / "home" / "agent.yaml"
    path.write_text("limits: {max_concurrent_builds: none}\n")
    agent.reload()
    assert agent.status().max_running == 2
    assert "max_concurrent_builds" in agent.status().problems[0]
    path.write_text("limits: {max_concurrent_builds: 5}\n")
    agent.reload()
    assert (agent.status().max_running, agent.status().problems) == (5, ())
