"""A store that can't be written for a while costs no build."""

from __future__ import annotations

from pathlib import Path

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.store import BuildStore
from smidr_ci.containers.runtime import ContainerSpec, Handle
from smidr_ci.errors import HostError
from tests.fakes.agent_bench import AgentBench
from tests.fakes.runtime import FakeRuntime
from tests.fakes.smidr_process import wait_until


class BrokenStore(BuildStore):
    """Takes no changes while `is_broken`."""

    is_broken = False

    def update(self, build_id: str, **changes: object) -> BuildRecord:
        if self.is_broken:
            raise HostError("disk I/O error")
        return super().update(build_id, **changes)


class Bench(AgentBench):
    """An `AgentBench` whose store may break."""

    def host(self) -> Host:
        host = super().host()
        self.broken = BrokenStore(host.home.database, host.home.locks)
        vars(host)["store"] = self.broken
        return host


def test_a_build_whose_end_could_not_be_written_is_taken_up_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    agent = bench.agent()
    agent.start()
    build_id = agent.submit(bench.order()).build_id
    bench.wait(agent, build_id, lambda view: view.record.state is BuildState.BUILDING)
    bench.broken.is_broken = True
    bench.may_end.set()
    wait_until(lambda: agent.status().running == (), "the end of its thread")
    assert not bench.broken.is_owned(build_id)
    assert agent.view(build_id).record.state is BuildState.BUILDING
    bench.broken.is_broken = False
    agent.submit(bench.order("bravo"))  # as anything else that has it look again
    final = bench.finish(agent, build_id)
    assert final.state is BuildState.COMPLETED, final.failure_message
    left = [item for item in bench.engine.containers.values() if item.spec.role == "build"]
    assert left == []


class FaultyRuntime(FakeRuntime):
    """Has a fault that nobody foresaw."""

    def start(self, spec: ContainerSpec) -> Handle:
        raise ZeroDivisionError(spec.build_id)


class FaultyBench(AgentBench):
    """An `AgentBench` with such an engine."""

    def host(self) -> Host:
        host = super().host()
        vars(host)["runtime"] = FaultyRuntime(engine=self.engine)
        return host


def test_who_waits_for_an_end_hears_of_a_fault_of_ours(tmp_path: Path) -> None:
    told: list[BuildRecord] = []
    bench = FaultyBench(tmp_path)
    agent = bench.agent(told.append)
    agent.start()
    build_id = agent.submit(bench.order()).build_id
    final = bench.finish(agent, build_id)
    assert (final.state, str(final.failure_kind)) == (BuildState.FAILED, "internal")
    wait_until(lambda: told, "the word about its end")
    assert [item.build_id for item in told] == [build_id]
