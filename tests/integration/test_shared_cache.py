"""Builds that are killed, cancelled and untrusted share one cache under load: it stays whole.

SMIDR_SOAK_ROUNDS says how many rounds; 20 take about ten minutes on two processors:

    SMIDR_SOAK_ROUNDS=20 pytest -s --timeout 3600 tests/integration/test_shared_cache.py
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import APIError

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.errors import AgentUnreachableError
from tests.fakes.agent_process import AgentProcess
from tests.fakes.bulky_recipes import BULKY, BulkySources
from tests.fakes.git_server import publish, serve
from tests.fakes.hello import HelloProject
from tests.fakes.load import busy_machine
from tests.fakes.smidr_process import Smidr, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_ROUNDS = int(os.environ.get("SMIDR_SOAK_ROUNDS", "2"))
_SEED = 4
_BUILD_S = 300.0
_TARGETS = [word for name in (*BULKY, "hello-image") for word in ("-t", name)]


@dataclass
class Site:
    """An agent with caches that all of its builds share."""

    agent: AgentProcess
    project: HelloProject
    publish: Callable[[], None]
    docker: APIClient
    chance: random.Random = field(default_factory=lambda: random.Random(_SEED))
    came_to: Counter[str] = field(default_factory=Counter)
    """How often each kind of build ended in which way."""

    @property
    def home(self) -> Path:
        return self.agent.smidr.home

    def start(self, customer: str, *options: str) -> str:
        return self.agent.submit("--customer", customer, *_TARGETS, *options)

    def wait_for_the_middle(self, build_id: str) -> None:
        """Wait until a random number of its tasks have begun, and then for a little while."""
        events = self.agent.console(build_id).with_name("events.jsonl")
        tasks = self.chance.randrange(1, 16)

        def is_there() -> bool:
            has_begun = events.exists() and events.read_text().count('"task-started"') >= tasks
            return has_begun or self.patiently(lambda: self.agent.record(build_id)).state.is_final

        wait_until(is_there, f"task {tasks} of {build_id}", _BUILD_S)
        threading.Event().wait(self.chance.uniform(0.0, 0.3))

    def patiently(self, ask: Callable[[], BuildRecord]) -> BuildRecord:
        """Ask the agent, again when somebody has killed it and started another one."""
        while True:
            try:
                return ask()
            except AgentUnreachableError:
                wait_until(self.agent.client.answers, "the next agent")

    def kill(self, build_id: str) -> None:
        """SIGKILL: the container, any process in it, or the container and the agent as well."""
        how = self.chance.choice(["container", "process", "agent"])
        found = [item for item in self.agent.containers(self.docker) if _is_of(item, build_id)]
        for item in found:
            try:
                if how == "process":
                    processes = self.docker.top(item["Id"])["Processes"]
                    os.kill(int(self.chance.choice(processes)[1]), signal.SIGKILL)
                else:
                    self.docker.kill(item["Id"])
            except (APIError, ProcessLookupError):
                self.came_to["killed too late"] += 1
        if how == "agent":
            self.agent.kill()
            self.agent.start()

    def finish(self, kind: str, build_id: str) -> BuildRecord:
        record = self.agent.finish(build_id, _BUILD_S)
        self.came_to[f"{kind} {record.state}"] += 1
        return record

    def verify(self) -> Counter[str]:
        """`smidr cache verify` finds nothing damaged; how many were in which state."""
        answer = self.agent.smidr("cache", "verify", "--json")
        assert answer.code == 0, answer.text
        *verdicts, summary = [json.loads(line) for line in answer.out.splitlines()]
        damaged = [item for item in verdicts if item["state"] == "damaged"]
        assert damaged == [], damaged
        for name in ("sstate-cache", "downloads"):
            aside = [path for path in (self.home / name).rglob("*damaged*") if path.is_file()]
            assert aside == [], "a build has set it aside already"
        counts = Counter[str]()
        for row in summary["verified"]:
            counts[f"{row['cache']} {row['state']}"] = row["count"]
        return counts


def _is_of(container: dict[str, Any], build_id: str) -> bool:
    return any(build_id in name for name in container["Names"])


@pytest.fixture
def site(tmp_path: Path, hello_project: HelloProject, docker_client: APIClient) -> Iterator[Site]:
    smidr = Smidr(tmp_path / "home", hello_project.work)
    smidr.home.mkdir(mode=0o700)
    settings = {"limits": {"max_concurrent_builds": 3}, "workspaces": {"mode": "warm"}}
    (smidr.home / "agent.yaml").write_text(json.dumps(settings))
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server, AgentProcess(smidr) as agent:
        yield Site(
            agent, hello_project, lambda: publish(hello_project.config, server), docker_client
        )


def one_round(site: Site, number: int) -> Counter[str]:
    """Three builds of something new at once; then what they left is whole, and of use."""
    BulkySources(site.project).change(number)
    site.publish()
    killed, cancelled = site.start("killed"), site.start("cancelled")
    stranger = site.start("stranger", "--untrusted")
    enemies = [
        threading.Thread(target=act)
        for act in (lambda: _kill(site, killed), lambda: _cancel(site, cancelled))
    ]
    for enemy in enemies:
        enemy.start()
    for enemy in enemies:
        enemy.join()
    site.finish("killed", killed)
    site.finish("cancelled", cancelled)
    record = site.finish("untrusted", stranger)
    assert record.state is BuildState.COMPLETED, record.failure_message
    counts = site.verify()
    after = site.finish("next", site.start("next"))
    assert after.state is BuildState.COMPLETED, after.failure_message
    assert _files(after) == _files(record)
    assert site.agent.containers(site.docker) == []
    return counts


def _kill(site: Site, build_id: str) -> None:
    site.wait_for_the_middle(build_id)
    site.kill(build_id)


def _cancel(site: Site, build_id: str) -> None:
    site.wait_for_the_middle(build_id)
    site.patiently(lambda: site.agent.client.cancel(build_id))


def _files(record: BuildRecord) -> dict[str, str]:
    return {item.path: item.sha256 for item in record.artifacts}


@pytest.mark.timeout(120 + _ROUNDS * 300)
def test_what_dies_or_is_a_stranger_leaves_the_shared_cache_whole(
    site: Site, tmp_path: Path
) -> None:
    with busy_machine(tmp_path, processors=1):
        counts = [one_round(site, number) for number in range(1, _ROUNDS + 1)]
    sys.stdout.write(f"{_ROUNDS} rounds: {dict(site.came_to)}; verified: {dict(counts[-1])}\n")
    assert site.came_to["untrusted completed"] == site.came_to["next completed"] == _ROUNDS
    assert site.came_to["killed completed"] < max(_ROUNDS, 2), site.came_to
    assert site.came_to["cancelled cancelled"] > 0, site.came_to
    assert counts[-1]["sstate proven"] >= len(BULKY) * _ROUNDS
    final = site.verify()
    assert final["sstate damaged"] == final["downloads damaged"] == 0
