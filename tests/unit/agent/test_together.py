"""Builds that wait and are alike: one run, and a result for each of them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.agent.service import Agent
from smidr_ci.builds.accept import request_for
from smidr_ci.builds.enlist import enlist
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import FailureKind, LayerError
from smidr_ci.files import make_marked_dir, remove_marked_tree
from smidr_ci.trust import Trust
from tests.fakes.agent_bench import PROJECT, AgentBench
from tests.fakes.runtime import FakeContainer
from tests.fakes.smidr_process import wait_until

_BLOCKER = "a-blocker"


@dataclass
class Bench(AgentBench):
    """An `AgentBench` with one place, which a first build holds until `free` is called."""

    share: str = "customer"
    places: int = 1
    ends: list[Callable[[FakeContainer], int]] = field(default_factory=list)
    """What the next containers do when they may end; then they succeed."""
    log: bytes = b"one\ntwo\n"

    def host(self) -> Host:
        host = super().host()
        agent = AgentConfig.model_validate(
            {
                "limits": host.agent.limits.model_dump(exclude_unset=True)
                | {"max_concurrent_builds": self.places},
                "builds": {"share": self.share},
            }
        )
        made = vars(host) | {"agent": agent}
        found = Host(host.home, agent, host.environ, host.clock)
        vars(found).update(made)
        return found

    def _program(self, container: FakeContainer) -> int:
        if container.spec.role == "build":
            control = container.host_path("/smidr/control")
            (control / "console.log").write_bytes(self.log)
            code = super()._program(container)
            if code == 0 and self.ends:
                code = self.ends.pop(0)(container)
            return code
        return 0

    def order(self, customer: str = "acme", **changes: Any) -> Order:
        """An order that works; `directory` too may be another."""
        return replace(super().order(customer), **changes)

    def block(self, agent: Agent) -> str:
        """Have the only place taken."""
        blocker = agent.submit(self.order(targets=(_BLOCKER,)))
        self.wait(agent, blocker.build_id, is_building)
        return blocker.build_id

    def builds_started(self, agent: Agent) -> list[str]:
        """Ids of the containers that there were, but for the blocker's."""
        started = vars(agent._settings.host)["runtime"].started
        return [spec.build_id for spec in started if spec.role == "build"]


def is_building(view: BuildView) -> bool:
    return view.record.state is BuildState.BUILDING


def is_over(view: BuildView) -> bool:
    return view.record.state.is_final


@contextmanager
def waiting(
    bench: Bench,
    count: int = 3,
    *orders: dict[str, Any],
    finished: Callable[[BuildRecord], object] = lambda _: None,
) -> Iterator[tuple[Agent, list[str]]]:
    """An agent with builds that wait; at the end of the block all goes."""
    agent = bench.agent(finished)
    agent.start()
    blocker = bench.block(agent)
    changes = orders or tuple({} for _ in range(count))
    ids = [agent.submit(bench.order(**change)).build_id for change in changes]
    agent.cancel(blocker, "Enough.", CancelLevel.KILL)
    try:
        yield agent, ids
    finally:
        bench.may_end.set()
        agent.stop(cancel_builds=True)
        assert agent.wait_until_ended(60)


def runs_of(agent: Agent, ids: list[str]) -> set[str]:
    return {agent.view(build_id).record.shared_run for build_id in ids}


def containers(bench: Bench) -> list[str]:
    found = bench.engine.containers.values()
    return [item.spec.build_id for item in found if item.spec.role == "build"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_three_that_are_alike_are_built_once_and_each_has_its_own_result(bench: Bench) -> None:
    told: list[str] = []
    with waiting(bench, finished=lambda record: told.append(record.build_id)) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        assert (sorted(agent.status().running), agent.status().taken) == (sorted(ids), 1)
        host = agent._settings.host
        consoles = [host.control_of(item) / "console.log" for item in ids]
        wait_until(lambda: all(path.exists() for path in consoles), "their logs")
        assert {path.read_bytes() for path in consoles} == {b"one\ntwo\n"}
        with consoles[0].open("ab") as log:
            log.write(b"three\n")
        assert {path.read_bytes() for path in consoles} == {b"one\ntwo\nthree\n"}
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in ids]
        assert {record.state for record in finals} == {BuildState.COMPLETED}
        assert len(bench.builds_started(agent)) == 2
        wait_until(lambda: sorted(told)[-3:] != [] and set(ids) <= set(told), "who hears of them")
        for record in finals:
            folder = host.artifacts_of(record)
            manifest = json.loads((folder / "manifest.json").read_text())
            assert (manifest["build_id"], manifest["customer"]) == (record.build_id, "acme")
            assert {item.path for item in record.artifacts} == {
                item["path"] for item in manifest["artifacts"]
            }
            assert (host.home.builds / record.build_id / "summary.md").exists()
        listed = {item.build_id for item in host.store.list()}
        (run,) = runs_of(agent, ids)
        assert (run in listed, set(ids) <= listed) == (False, True)
        wait_until(lambda: not (host.artifacts_root / "acme" / run).exists(), "its artifacts' end")
        remove_marked_tree(host.artifacts_of(finals[0]), host.artifacts_root)
        path = finals[1].artifacts[0].path
        assert (host.artifacts_of(finals[1]) / path).read_text() == path.rpartition("/")[2]
        completed = host.store.totals()[BuildState.COMPLETED, None]
        assert completed == 3


def test_what_is_not_quite_alike_is_built_for_itself(bench: Bench) -> None:
    orders: list[dict[str, Any]] = [
        {},
        {"targets": ("other-image",)},
        {"clean": True},
        {"clean": True},
        {"fresh": True},
        {"keep_workspace": True},
        {"keep_workspace": True},
        {"environment": {"COLOUR": "red"}},
        {"config_text": PROJECT + "local_conf: ['A = \"1\"']\n"},
        {"customer": "bravo"},
        {"trust": Trust.UNTRUSTED},
        {"trust": Trust.UNTRUSTED, "private_cache_key": "one"},
        {"fetch_only": True},
    ]
    bench.may_end.clear()
    with waiting(bench, 0, *orders) as (agent, ids):
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in ids]
        assert {record.shared_run for record in finals} == {""}
        assert {record.state for record in finals} == {BuildState.COMPLETED}


@pytest.mark.parametrize(("share", "runs"), [("none", 3), ("customer", 2), ("all", 1)])
def test_the_operator_says_who_shares(tmp_path: Path, share: str, runs: int) -> None:
    bench = Bench(tmp_path, share=share)
    with waiting(bench, 0, {}, {}, {"customer": "bravo"}) as (agent, ids):
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in ids]
        assert {record.state for record in finals} == {BuildState.COMPLETED}
        assert len(bench.builds_started(agent)) == 1 + runs
        host = agent._settings.host
        assert all((host.artifacts_of(record) / "manifest.json").exists() for record in finals)


def test_another_content_of_a_local_layer_is_another_build(bench: Bench) -> None:
    folders = [bench.root / name for name in ("one", "two", "three")]
    for folder in folders:
        for name in ("bitbake", "core"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to(bench.bench.project / name)
    (folders[2] / "core").unlink()
    changed = folders[2] / "core"
    shutil.copytree(bench.bench.project / "core", changed)
    (changed / "conf" / "more.conf").write_text("A = '1'\n")
    orders: list[dict[str, Any]] = [{"directory": folder} for folder in folders]
    agent = bench.agent()
    agent.start()
    blocker = bench.block(agent)
    ids = [agent.submit(bench.order(**order)).build_id for order in orders]
    agent.cancel(blocker, "Enough.", CancelLevel.KILL)
    bench.may_end.set()
    finals = [bench.finish(agent, build_id) for build_id in ids]
    assert finals[0].shared_run == finals[1].shared_run != ""
    assert finals[2].shared_run == ""


def test_a_cancel_ends_one_and_leaves_the_others_their_container(bench: Bench) -> None:
    with waiting(bench) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        (run,) = runs_of(agent, ids)
        for build_id in ids[:2]:  # also the one whose order is built
            agent.cancel(build_id, "Not wanted.")
            final = bench.finish(agent, build_id)
            assert (final.state, final.failure_message) == (BuildState.CANCELLED, "Not wanted.")
        assert containers(bench) == [run]
        wait_until(lambda: agent.status().running == (ids[2],), "their end")
        bench.may_end.set()
        assert bench.finish(agent, ids[2]).state is BuildState.COMPLETED
        assert len(bench.builds_started(agent)) == 2


def test_when_nobody_wants_it_any_more_the_container_goes_first(bench: Bench) -> None:
    with waiting(bench) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        for build_id in ids:
            agent.cancel(build_id, "Not wanted.", CancelLevel.KILL)
        finals = [bench.finish(agent, build_id) for build_id in ids]
        assert {record.state for record in finals} == {BuildState.CANCELLED}
        assert containers(bench) == []
        assert agent._settings.host.store.get(ids[-1]).failure_message == "Not wanted."


def fails(container: FakeContainer) -> int:
    control = container.host_path("/smidr/control")
    with (control / "console.log").open("a") as log:
        log.write("ERROR: zlib-1.3-r0 do_compile: oh no\n")
    event = {"event": "log", "level": "error", "message": "zlib-1.3-r0 do_compile: oh no"}
    (control / "events.jsonl").write_text(json.dumps(event) + "\n")
    (control / "result.json").write_text(json.dumps({"exit_code": 1, "phase": "build"}))
    return 1


def test_what_bitbake_failed_at_all_of_them_failed_at(bench: Bench) -> None:
    bench.ends = [fails]
    with waiting(bench) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in ids]
        kinds = {(record.state, record.failure_kind) for record in finals}
        assert kinds == {(BuildState.FAILED, FailureKind.BUILD)}
        assert len({json.dumps([dict(item) for item in r.findings]) for r in finals}) == 1
        assert finals[0].findings
        assert len(bench.builds_started(agent)) == 2


def is_stopped(container: FakeContainer) -> int:
    (container.host_path("/smidr/control") / "result.json").unlink()
    return 137


def test_trouble_of_the_host_is_not_shared(bench: Bench) -> None:
    bench.ends = [is_stopped]
    with waiting(bench) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in ids]
        assert finals[0].failure_kind is FailureKind.INTERRUPTED
        assert {record.state for record in finals[1:]} == {BuildState.COMPLETED}
        assert [record.shared_run for record in finals[1:]] == ["", ""]
        assert len(bench.builds_started(agent)) == 4
        host = agent._settings.host
        logs = [host.control_of(record.build_id) / "console.log" for record in finals]
        assert {path.stat().st_ino for path in logs[1:]}.isdisjoint({logs[0].stat().st_ino})
        assert {path.read_bytes() for path in logs[1:]} == {b""}


class _Images:
    """Lets nobody have an image before it is told to, and then nobody at all."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.times = 0

    def ensure(self, *_: object, **__: object) -> object:
        self.times += 1
        self.asked.set()
        assert self.go_on.wait(30)
        raise LayerError("no such thing")


def test_before_bitbake_runs_the_end_of_its_owner_ends_the_run_for_all(bench: Bench) -> None:
    images = _Images()
    with waiting(bench) as (agent, ids):
        for build_id in ids:
            bench.wait(agent, build_id, is_building)
        bench.may_end.set()
        for build_id in ids:
            bench.finish(agent, build_id)
        bench.may_end.clear()
        blocker = bench.block(agent)
        good = vars(agent._settings.host)["images"]
        vars(agent._settings.host)["images"] = images
        later = [agent.submit(bench.order()).build_id for _ in range(3)]
        agent.cancel(blocker, "Enough.", CancelLevel.KILL)
        assert images.asked.wait(30)
        agent.cancel(later[0], "Not wanted.")
        vars(agent._settings.host)["images"] = good
        images.go_on.set()
        bench.may_end.set()
        finals = [bench.finish(agent, build_id) for build_id in later]
        states = [record.state for record in finals]
        assert states == [BuildState.CANCELLED, BuildState.COMPLETED, BuildState.COMPLETED]
        assert images.times == 1


def test_an_own_source_may_go_once_bitbake_runs(bench: Bench) -> None:
    agent = bench.agent()
    agent.start()
    blocker = bench.block(agent)
    home = agent._settings.host.home
    ids = []
    for number in range(2):
        source = home.incoming / f"s{number}"
        shutil.copytree(bench.bench.project, source)
        make_marked_dir(source)
        order = bench.order(is_confined=True, directory=source)
        ids.append(agent.submit(order, source).build_id)
    agent.cancel(blocker, "Enough.", CancelLevel.KILL)
    for build_id in ids:
        bench.wait(agent, build_id, is_building)
    assert len(runs_of(agent, ids) - {""}) == 1
    agent.cancel(ids[0], "Not wanted.")
    bench.finish(agent, ids[0])
    remove_marked_tree(home.builds / ids[0], home.builds)
    bench.may_end.set()
    final: BuildRecord = bench.finish(agent, ids[1])
    assert (final.state, final.failure_message) == (BuildState.COMPLETED, "")


def test_places_that_get_free_together_do_not_part_what_is_alike(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits={"builds_per_customer": 3}, places=3)
    first = bench.agent()
    ids = [first.submit(bench.order()).build_id for _ in range(4)]  # nothing starts yet
    first.start()
    for build_id in ids:
        bench.wait(first, build_id, is_building)
    assert len(runs_of(first, ids) - {""}) == 1
    bench.may_end.set()
    finals = [bench.finish(first, build_id) for build_id in ids]
    assert {record.state for record in finals} == {BuildState.COMPLETED}
    assert len(bench.builds_started(first)) == 1


def test_what_was_ordered_alike_and_is_not_keeps_its_place_in_the_queue(bench: Bench) -> None:
    folders = [bench.root / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        shutil.copytree(bench.bench.project, folder)
        (folder / "core" / "conf" / "more.conf").write_text(f"A = '{number}'\n")
    with waiting(bench, 0, *({"directory": folder} for folder in folders), {}) as (agent, ids):
        bench.wait(agent, ids[0], is_building)
        wait_until(lambda: list(agent.status().queued) == ids[1:], "the others' return")
        agent.cancel(ids[1], "Not wanted.")
        assert bench.finish(agent, ids[1]).state is BuildState.CANCELLED
        bench.may_end.set()
        assert bench.finish(agent, ids[2]).state is BuildState.COMPLETED


def test_a_build_whose_run_is_gone_is_built_for_itself(bench: Bench) -> None:
    host, order = bench.host(), bench.order()
    record, claim = enlist(host, request_for(host, order), order)
    claim.release()  # the agent died before anything started
    build_id = host.store.update(record.build_id, shared_run="acme-00000000").build_id
    bench.may_end.set()
    second = bench.agent()
    second.start()
    final = bench.finish(second, build_id)
    assert (final.state, final.shared_run) == (BuildState.COMPLETED, "")
