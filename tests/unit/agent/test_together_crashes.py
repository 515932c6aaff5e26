"""An agent that is killed at any step of a run for several builds; the next ones end it.

`tests.fakes.crashes.Steps` says what a step is. Here several threads make them, so that the same
number is not always the same step.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace

from smidr_ci.agent.service import Agent
from smidr_ci.agent.settings import Settings
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.views import record_as_dict
from tests.fakes.agent_bench import PROJECT
from tests.fakes.crashes import CrashSite
from tests.fakes.runtime import FakeContainer
from tests.fakes.smidr_process import wait_until
from tests.unit.builds.test_crashes import check_artifacts, console, succeeds

# A container goes on when an agent dies. The fake's runs in the agent's process and then begins
# again, at any point: twice in the same container is no fault of an agent's.
_CONTAINERS = "containers.txt"
_UNFINISHED = tuple(state for state in BuildState if not state.is_final)
_ALIKE = 3
_SETTINGS = {"cache": {"hash_server": False}}


class Agents(CrashSite):
    """Agents of one home, one after the other."""

    def live(self, orders: int = 0, die_at: int | None = None, cancel: int = 0) -> int | None:
        """Take so many orders that are alike, cancel some, bring all to its end; as `begin`."""

        def work(host: Host) -> None:
            vars(host)["engine"] = SimpleNamespace(reach=lambda: None, load=lambda: None)
            agent = Agent(Settings(host))
            order = Order("acme", PROJECT, "smidr.yaml", self.bench.project, is_confined=False)
            ids = [agent.submit(order).build_id for _ in range(orders)]
            agent.start()
            for build_id in ids[:cancel]:
                agent.cancel(build_id, "Not wanted.")
            wait_until(lambda: _is_quiet(host, agent), "the end of all builds")

        return self._live(work, die_at)

    def runs(self) -> list[dict[str, object]]:
        """Records of the runs, which lists don't show."""

        def work(host: Host) -> None:
            listed = host.store.list(limit=1000, include_deleted=True)
            shown = {item.build_id for item in host.store.list(limit=1000)}
            hidden = [
                record_as_dict(host.store.get(item.build_id, include_deleted=True))
                for item in listed
                if item.build_id not in shown
            ]
            self._answer.write_text(json.dumps(hidden))

        self._live(work, None)
        found: list[dict[str, object]] = json.loads(self._answer.read_text())
        return found


def _is_quiet(host: Host, agent: Agent) -> bool:
    left = host.store.list(limit=1, state=_UNFINISHED, include_deleted=True)
    status = agent.status()
    return not (left or status.running or status.queued)


def works(container: FakeContainer) -> int:
    control = container.host_path("/smidr/control")
    for name in ("console.log", "events.jsonl"):
        (control / name).write_text("")
    with (control.parent.parent.parent.parent / _CONTAINERS).open("a") as file:
        file.write(f"{container.spec.build_id} {container.container_id}\n")
    return succeeds(container)


def test_a_death_at_any_step_loses_no_build_and_builds_nothing_twice(tmp_path: Path) -> None:
    chance = random.Random(11)
    site = Agents(tmp_path / "site", works, settings=_SETTINGS)
    whole = site.live(_ALIKE)
    assert whole is not None
    deaths = 0
    for step in range(2, whole, max(whole // 10, 1)):
        deaths += site.live(_ALIKE, step + chance.randrange(3)) is None
        if chance.random() < 0.5:
            site.meanwhile()
        for _ in range(2):
            deaths += site.live(die_at=chance.randrange(1, whole)) is None
        assert site.live() is not None
    assert deaths >= 5
    records = site.records()
    assert {record["state"] for record in records} == {"completed"}
    expected = console(site, records[0])
    for record in records:
        check_artifacts(site, record)
        assert record["artifacts"]
        assert console(site, record) == expected, record["build_id"]
    shared = {record["shared_run"] for record in records} - {""}
    runs = {run["build_id"]: run for run in site.runs()}
    assert shared <= runs.keys()
    assert len(shared) >= 2
    assert {run["state"] for run in runs.values()} == {"completed"}
    made = set((site.root / _CONTAINERS).read_text().splitlines())
    alone = [record["build_id"] for record in records if not record["shared_run"]]
    assert sorted(line.split()[0] for line in made) == sorted([*alone, *runs])
    assert site.left() == [], "\n".join(site.left())


def test_a_death_changes_nothing_about_who_was_cancelled(tmp_path: Path) -> None:
    chance = random.Random(5)
    site = Agents(tmp_path / "site", works, settings=_SETTINGS)
    whole = site.live(_ALIKE, cancel=1)
    assert whole is not None
    for _ in range(5):
        site.live(_ALIKE, chance.randrange(20, whole), cancel=1)
        assert site.live() is not None
    for record in site.records():
        wanted = "cancelled" if record["cancel_reason"] else "completed"
        assert record["state"] in {wanted, "completed"}
    assert site.left() == [], "\n".join(site.left())
