"""A disk that is full from any step of a build on: a clear failure, and nothing is damaged.

SMIDR_FULL_DISK_EVERY=1 tries about each step; the default skips some, others in each case.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildState
from smidr_ci.errors import FailureKind
from tests.fakes.agent_bench import AgentBench
from tests.fakes.disk import make_full, make_roomy, small_disk
from tests.fakes.full_disk import FullDiskSite, Told, full_disk_site
from tests.fakes.runtime import FakeContainer
from tests.fakes.smidr_process import wait_until
from tests.unit.builds.test_crashes import succeeds

_EVERY = int(os.environ.get("SMIDR_FULL_DISK_EVERY", "10"))
_WARM = {"workspaces": {"mode": "warm", "max_count": 1000}}


def check_told(site: FullDiskSite, told: Told) -> None:
    """The user hears that the disk is full, where, and what to do."""
    if told.record.get("state") == "completed":
        return
    assert told.kind == "disk", told
    what, _, hint = told.message.rpartition("\n  ")
    assert any(word in what for word in ("full", "No space left", "no room")), told.message
    assert str(site.root) in told.message
    assert any(word in hint for word in ("Free", "Make room")), told.message


def go_through(site: FullDiskSite, chance: random.Random, *, is_first: bool) -> list[Told]:
    """Builds that find the disk full at one step after the other, and what each came to."""
    found = list[Told]()
    # The first build has twice as many steps.
    most = 2 * _EVERY if is_first else _EVERY
    step = 0
    while not found or found[-1].steps >= step:
        step += chance.randint(1, most)
        if is_first:
            site.empty()
        told = site.build(step)
        check_told(site, told)
        site.check_whole()
        site.make_space()
        assert site.go_on() is not None
        again = site.build()
        assert again.record["state"] == "completed", again.message
        assert site.left() == [], f"step {step}"
        found.append(told)
    return found


@pytest.mark.parametrize(
    ("is_first", "names", "settings"),
    [(True, False, {}), (True, True, {}), (False, False, {}), (False, True, _WARM)],
    ids=["first-bytes", "first-names", "later-bytes", "warm-names"],
)
def test_a_disk_that_fills_up_at_any_step_is_named_and_damages_nothing(
    tmp_path: Path, is_first: bool, names: bool, settings: dict[str, Any]
) -> None:
    with full_disk_site(tmp_path / "site", succeeds, names=names, settings=settings) as site:
        for _ in range(2):  # the second one sees its layers and an earlier build
            assert site.build().record["state"] == "completed"
        found = go_through(site, random.Random(_EVERY), is_first=is_first)
        records = site.records()
    failed = [told for told in found if told.record.get("state") != "completed"]
    assert len(failed) > len(found) / 2
    assert len({told.message.partition(": ")[2].partition("\n")[0] for told in failed}) >= 2
    assert found[-1].record["state"] == "completed"
    assert {record["state"] for record in records} <= {"completed", "failed"}
    if settings:
        assert any(record["warm_from"] for record in records)


class FullBench(AgentBench):
    """An `AgentBench` whose "container" fails where the disk is full."""

    def host(self) -> Host:
        self.opened = super().host()
        return self.opened

    def _program(self, container: FakeContainer) -> int:
        try:
            return super()._program(container)
        except OSError:
            return 1


def test_an_agent_lives_on_and_builds_again_when_there_is_space(tmp_path: Path) -> None:
    bench = FullBench(tmp_path / "bench")
    with small_disk(tmp_path / "bench" / "home", "64m") as disk:
        disk.chmod(0o700)
        threads = threading.active_count()
        agent = bench.agent()
        agent.start()
        build_id = agent.submit(bench.order()).build_id
        bench.wait(agent, build_id, lambda view: view.record.state is BuildState.BUILDING)
        make_full(disk)
        bench.may_end.set()
        first = bench.finish(agent, build_id)
        assert (first.state, first.failure_kind) == (BuildState.FAILED, FailureKind.DISK)
        make_roomy(disk)
        second = bench.finish(agent, agent.submit(bench.order("bravo")).build_id)
        assert second.state is BuildState.COMPLETED, second.failure_message
        assert agent.is_alive()
        agent.stop()
        wait_until(lambda: threading.active_count() <= threads, "the end of its threads")
        bench.opened.store.close()
