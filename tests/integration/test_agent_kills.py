"""The agent dies by `kill -9` again and again during real builds, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from docker import APIClient

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.locks import is_locked
from tests.fakes.agent_process import AgentProcess
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Running, Smidr, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_SEED = 20260102
_STAGES = ("preparing", "building", "extracting-artifacts")
_WAIT_S = 60.0


@dataclass
class Site:
    """An agent with a project, and an engine."""

    agent: AgentProcess
    project: HelloProject
    docker: APIClient
    followers: dict[str, Follower] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.agent.smidr.home

    def start(self, customer: str, *arguments: str) -> str:
        """Queue a build, and follow its log from the first byte on."""
        build_id = self.agent.submit("--customer", customer, *arguments)
        self.followers[build_id] = Follower(self.agent.smidr, build_id)
        return build_id

    def check(self, build_id: str, state: BuildState = BuildState.COMPLETED) -> BuildRecord:
        """The build ended so, whole; nothing of it is left; its follower saw each byte once."""
        record = self.agent.finish(build_id)
        assert record.state is state, f"{record.failure_message}\n{self.agent.said}"
        self._check_history(record)
        self._check_artifacts(record)
        self._check_log(record)
        return record

    def check_that_nothing_is_left(self) -> None:
        """No container, no lease, no lock but the agent's own, nothing half-done."""
        assert self.agent.containers(self.docker) == []
        assert list(self.home.glob("workspaces/*/[0-9]*")) == []
        assert list(self.home.glob("artifacts/*/.*")) == []
        assert list(self.home.glob("builds/*/checkpoint.json")) == []
        locks = [path for path in self.home.rglob("*.lock") if is_locked(path)]
        assert [path.name for path in locks] == ["agent.lock"]

    def _check_history(self, record: BuildRecord) -> None:
        listed = [item.build_id for item in self.agent.client.list(limit=1000)]
        assert listed.count(record.build_id) == 1
        names = [stage.name for stage in record.stages]
        if record.state is BuildState.COMPLETED:
            assert names == list(_STAGES)
            assert set(record.layer_commits) == {"bitbake", "meta-hello"}
            assert record.tasks["total"] > 0
        times = [
            moment
            for stage in record.stages
            for moment in (stage.started, stage.ended)
            if moment is not None
        ]
        assert len(times) == 2 * len(record.stages)
        assert times == sorted(times)
        assert record.ended is not None
        assert record.owner_pid is None

    def _check_artifacts(self, record: BuildRecord) -> None:
        folder = self.home / "artifacts" / record.customer / record.build_id
        assert bool(record.artifacts) is (record.state is BuildState.COMPLETED)
        if not record.artifacts:
            assert not folder.exists()
            return
        manifest = json.loads((folder / "manifest.json").read_text())
        listed = {item["path"]: item["sha256"] for item in manifest["artifacts"]}
        assert listed == {item.path: item.sha256 for item in record.artifacts}
        for item in record.artifacts:
            content = (folder / item.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == item.sha256

    def _check_log(self, record: BuildRecord) -> None:
        path = self.agent.console(record.build_id)
        console = path.read_bytes() if path.exists() else b""
        assert self.followers[record.build_id].finish() == console
        if record.state is BuildState.COMPLETED:
            text = console.decode()
            assert text.count("Tasks Summary") == 1, text
            assert self._phases(record.build_id) == ["phase", "phase-end"]
            succeeded = [line for line in text.splitlines() if line.endswith(": Succeeded")]
            assert len(succeeded) == len(set(succeeded)), text

    def _phases(self, build_id: str) -> list[str]:
        """BitBake's beginnings and ends, as its driver tells them."""
        path = self.agent.console(build_id).with_name("events.jsonl")
        events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
        return [event for event in events if event in {"phase", "phase-end"}]


class Follower:
    """`smidr client logs --follow`, over all deaths of the agent."""

    def __init__(self, smidr: Smidr, build_id: str) -> None:
        self._smidr, self._build_id = smidr, build_id
        self._path = smidr.home.parent / f"followed-{build_id}.log"
        self._process = self._begin()
        self.was_late = False
        """It came between two agents, and found none."""

    def _begin(self) -> Running:
        command = ("client", "logs", "--follow", "--build-id", self._build_id)
        with self._path.open("w") as output:
            return self._smidr.start(*command, output=output)

    def end(self) -> None:
        """However it stands."""
        self._process.kill()
        self._process.wait()

    def finish(self) -> bytes:
        """All that it printed; it must have ended well."""
        code = self._process.wait(_WAIT_S)
        said = self._path.read_bytes()
        if code and said.startswith(b"Error: no agent runs"):
            self.was_late, self._process = True, self._begin()
            code, said = self._process.wait(_WAIT_S), self._path.read_bytes()
        assert code == 0, said.decode(errors="replace")
        return said


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("kills")
    project = make_hello_project(root)
    add_fault_recipes(project)
    smidr = Smidr(root / "home", project.work)
    smidr.home.mkdir(mode=0o700)
    (smidr.home / "agent.yaml").write_text("limits: {max_concurrent_builds: 2}\n")
    with AgentProcess(smidr) as agent:
        site = Site(agent, project, docker_client)
        try:
            site.check(site.start("warm"))
            yield site
        finally:
            for follower in site.followers.values():
                follower.end()


@dataclass(frozen=True)
class Moment:
    """A kill at most `within_s` after a build has reached a stage."""

    stage: BuildState
    within_s: float


_MOMENTS = (
    Moment(BuildState.QUEUED, 0.02),
    Moment(BuildState.PREPARING, 0.02),
    Moment(BuildState.PREPARING, 0.1),
    Moment(BuildState.BUILDING, 0.1),
    Moment(BuildState.BUILDING, 0.4),
    Moment(BuildState.BUILDING, 1.0),
    Moment(BuildState.BUILDING, 3.0),
    Moment(BuildState.EXTRACTING, 0.0),
    Moment(BuildState.EXTRACTING, 0.03),
    Moment(BuildState.COMPLETED, 0.05),
)


def wait_for(agent: AgentProcess, build_id: str, moment: Moment, chance: random.Random) -> str:
    """Wait for the moment in this build's life; the stage that it was in then."""
    for view in agent.client.watch(build_id):
        if view.record.state is moment.stage:
            break
    threading.Event().wait(chance.uniform(0.0, moment.within_s))
    return str(agent.record(build_id).state)


def test_ten_deaths_of_the_agent_lose_nothing(site: Site) -> None:
    """Each hits a build at a moment of its own, while another customer's build runs or waits."""
    chance = random.Random(_SEED)
    moments = chance.sample(_MOMENTS, len(_MOMENTS))
    builds: list[str] = []
    hit: list[str] = []
    for moment in moments:
        builds += [site.start("bravo"), site.start("acme")]
        hit.append(wait_for(site.agent, builds[-1], moment, chance))
        site.agent.kill()
        site.agent.start()
    records = [site.check(build_id) for build_id in builds]
    site.check_that_nothing_is_left()
    for customer in ("acme", "bravo"):
        started = [item.started for item in records if item.customer == customer and item.started]
        assert len(started) == len(moments)
        assert started == sorted(started)
    assert len(set(hit)) >= 3, hit
    late = [build_id for build_id in builds if site.followers[build_id].was_late]
    assert len(late) < len(builds) / 2, "most must have followed while the agent died"


def test_a_cancel_right_before_the_death_still_cancels(site: Site) -> None:
    running = site.start("patient", "-t", "patient")
    waiting = site.start("patient", "-t", "patient")
    site.agent.wait_for(running, BuildState.BUILDING)
    wait_until(lambda: site.agent.console(running).exists(), "BitBake's beginning")
    for build_id in (waiting, running):
        site.agent.client.cancel(build_id)
    site.agent.kill()
    site.agent.start()
    # BitBake lets a running task end.
    (site.project.work / "go").touch()
    for build_id in (running, waiting):
        record = site.check(build_id, BuildState.CANCELLED)
        assert "Cancelled by" in record.failure_message
    (site.project.work / "go").unlink()
    site.check_that_nothing_is_left()


def test_queued_builds_keep_their_places(site: Site) -> None:
    running = [site.start(customer, "-t", "patient") for customer in ("first", "second")]
    for build_id in running:
        site.agent.wait_for(build_id, BuildState.BUILDING)
    # Two of one customer that are alike would be built once.
    orders = (("third", "motd"), ("first", "motd"), ("third", "init"))
    queued = [site.start(customer, "-t", target) for customer, target in orders]
    before = list(site.agent.client.status().queued)
    assert before == queued
    site.agent.kill()
    site.agent.start()
    assert list(site.agent.client.status().queued) == before
    (site.project.work / "go").touch()
    records = [site.agent.finish(build_id) for build_id in (*running, *queued)]
    (site.project.work / "go").unlink()
    assert {record.state for record in records} == {BuildState.COMPLETED}
    begun = [record.started for record in records[2:] if record.started]
    assert (len(begun), begun) == (3, sorted(begun))


def test_a_death_while_the_agent_waits_for_nothing_changes_nothing(site: Site) -> None:
    before = site.agent.client.list(limit=1000)
    site.agent.kill()
    site.agent.start()
    assert site.agent.client.list(limit=1000) == before
    assert "Traceback" not in site.agent.said
    site.check_that_nothing_is_left()
