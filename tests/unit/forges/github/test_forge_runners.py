"""A whole registration with runners on demand: webhooks, approvals, status, restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import ConfigError
from smidr_ci.forges.github.assembly import make_deliverers, make_runner
from smidr_ci.forges.github.events import hint_of
from smidr_ci.forges.github.forge import APPROVAL, GitHubForge
from smidr_ci.forges.github.runners.ports import RunnerState
from smidr_ci.forges.github.webhooks import put_hint
from smidr_ci.forges.registration import Registration, Registrations
from tests.fakes.github.demand_bench import SMIDR_WORKFLOW, WORKFLOW
from tests.fakes.github.local_runners import FakeLocalRunners
from tests.fakes.github.room import Room
from tests.fakes.github.server import GitHubServer
from tests.fakes.github.state import SHA
from tests.unit.forges.github.test_forge import Lab, registered
from tests.unit.forges.github.test_webhooks import check_run

PREFIX = "github:lab:"
Make = Callable[..., "Agent"]


class Agent(Lab):
    """With local runners that are only states."""

    def __init__(self, room: Room, settings: dict[str, Any], **config: Any) -> None:
        super().__init__(room, registered(room), **config)
        self.runners = FakeLocalRunners(room.clock)
        self.registration = registered(room, **settings)
        Registrations(self.home).save(self.registration)
        self.forge = self.made()

    def made(self) -> GitHubForge:
        forge = GitHubForge(self.registration, self.parts, None, self._local)
        for prefix, deliverer in forge.deliverers().items():
            self.outbox.unregister(prefix)
            self.outbox.register(prefix, deliverer)
        return forge

    def _local(self, registration: str, host: Any, downloads: Any) -> FakeLocalRunners:
        assert registration == "lab"
        del host, downloads
        return self.runners

    def hook(self, event: str, payload: dict[str, Any], guid: str) -> None:
        hint = hint_of(event, guid, {"repository": {"full_name": "acme/bsp"}, **payload})
        assert hint is not None
        put_hint(self.parts.outgoing, PREFIX, hint)


@pytest.fixture
def make(room: Room) -> Iterator[Make]:
    made: list[Agent] = []

    def agent(settings: dict[str, Any] | None = None, **config: Any) -> Agent:
        made.append(Agent(room, settings or {"mode": "jit", "labels": ["smidr"]}, **config))
        return made[-1]

    yield agent
    for item in made:
        item.close()


def queued_job(github: GitHubServer, **run: Any) -> dict[str, Any]:
    with github.lock:
        github.state.add_run(status="queued", **run)
        github.state.runners.put(WORKFLOW, SMIDR_WORKFLOW, ref=SHA)
        return github.state.add_job(status="queued", runner_name=None)


def test_a_webhook_about_a_job_leads_to_a_runner(make: Make, github: GitHubServer) -> None:
    agent = make()
    agent.start()
    github.wait_until(lambda: bool(github.asked("GET /repos/acme/bsp/actions/runs")))
    job = queued_job(github)
    agent.hook("workflow_job", {"action": "queued", "workflow_job": {"id": job["id"]}}, "g1")
    agent.runners.wait_until(lambda: len(agent.runners.started) == 1)
    status = agent.forge.status()
    assert status.state == "asking"
    assert status.runners["starting"] == 1
    assert status.runner_version == "2.340.0"
    assert any("starting" in line for line in status.jobs)
    assert (agent.forge.expected_builds, agent.forge.is_busy) == (1, False)
    agent.runners.go(agent.runners.started[0], RunnerState.BUSY)
    assert (agent.forge.expected_builds, agent.forge.is_busy) == (0, True)


def test_a_webhook_about_a_job_that_was_cancelled_meanwhile_starts_nothing(
    make: Make, github: GitHubServer
) -> None:
    agent = make()
    agent.start()
    job = queued_job(github)
    job.update(status="completed", conclusion="cancelled")
    agent.hook("workflow_job", {"action": "completed", "workflow_job": {"id": job["id"]}}, "g1")
    agent.hook("workflow_job", {"action": "queued", "workflow_job": {"id": job["id"]}}, "g2")
    assert any(agent.outbox.flush(5) for _ in range(10))
    assert agent.forge.on_demand is not None
    assert agent.forge.on_demand.settle(20)
    assert agent.runners.started == []


def test_the_button_that_approves_a_forks_commit_brings_its_runner(
    make: Make, github: GitHubServer
) -> None:
    github.state.roles["alice"] = "write"
    agent = make(github={"forks": "approve"})
    queued_job(github, event="pull_request")
    github.state.runs[555]["head_repository"]["id"] = 66
    agent.start()
    github.wait_until(lambda: len(github.state.checks) == 1)
    (run,) = github.state.checks.values()
    assert (run["name"], run["conclusion"]) == (APPROVAL, "action_required")
    assert "begins by itself" in run["output"]["summary"]
    assert agent.runners.started == []
    pressed = check_run("requested_action", requested_action={"identifier": "approve"})
    agent.hook("check_run", {**pressed, "check_run": {"id": run["id"]}}, "g1")
    agent.runners.wait_until(lambda: len(agent.runners.started) == 1)
    github.wait_until(lambda: run["conclusion"] == "success")
    assert "alice approved" in run["output"]["summary"]


def test_a_button_pressed_by_a_stranger_brings_no_runner(make: Make, github: GitHubServer) -> None:
    github.state.roles["alice"] = "read"
    agent = make(github={"forks": "approve"})
    queued_job(github, event="pull_request")
    github.state.runs[555]["head_repository"]["id"] = 66
    agent.start()
    github.wait_until(lambda: len(github.state.checks) == 1)
    (run,) = github.state.checks.values()
    pressed = check_run("requested_action", requested_action={"identifier": "approve"})
    agent.hook("check_run", {**pressed, "check_run": {"id": run["id"]}}, "g1")
    assert any(agent.outbox.flush(5) for _ in range(10))
    assert agent.forge.on_demand is not None
    assert agent.forge.on_demand.settle(20)
    assert agent.runners.started == []
    assert run["conclusion"] == "action_required"


def test_the_next_agent_goes_on_with_the_runners(make: Make, github: GitHubServer) -> None:
    agent = make()
    queued_job(github)
    agent.start()
    agent.runners.wait_until(lambda: len(agent.runners.started) == 1)
    agent.forge.stop()
    agent.forge = agent.made()
    agent.forge.start()
    assert agent.forge.on_demand is not None
    assert agent.forge.on_demand.settle(20)
    assert len(agent.runners.started) == 1
    assert agent.forge.running() == agent.forge.on_demand.described()


def test_a_registration_that_leaves_is_over_when_its_runners_are(
    make: Make, github: GitHubServer
) -> None:
    agent = make()
    queued_job(github)
    agent.start()
    agent.runners.wait_until(lambda: len(agent.runners.started) == 1)
    Registrations(agent.home).remove("lab")
    agent.forge.drain()
    agent.forge.drain()
    agent.runners.wait_until(lambda: not agent.runners.known)
    assert agent.forge.running() == []
    assert github.state.runners.known == {}


def test_a_pause_is_taken_over_at_once(make: Make, github: GitHubServer) -> None:
    agent = make()
    agent.start()
    assert agent.forge.on_demand is not None
    assert agent.forge.on_demand.settle(20)
    agent.forge.update(replace(agent.registration, is_paused=True))
    queued_job(github)
    assert agent.forge.on_demand.settle(20)
    assert agent.runners.started == []
    assert agent.forge.status().state == "paused"
    agent.forge.update(agent.registration)
    agent.runners.wait_until(lambda: len(agent.runners.started) == 1)


def test_a_scale_sets_session_ends_with_the_forge(make: Make, github: GitHubServer) -> None:
    agent = make({"mode": "scale-set", "scale_set": "smidr-lab1"})
    agent.start()
    github.wait_until(lambda: bool(github.scale_sets.capacities))
    agent.forge.stop()
    assert github.scale_sets.only.session is None


def test_the_agents_own_assembly_has_runners_of_this_host(room: Room) -> None:
    agent = Lab(room, registered(room))
    registration = registered(room, mode="jit", labels=["smidr"])
    forge = make_runner(registration, agent.parts)
    assert forge.on_demand is not None
    assert forge.on_demand.alive() == []
    assert set(make_deliverers(registration, agent.parts)) == {f"{PREFIX}check:", f"{PREFIX}hook:"}
    assert agent.forge.on_demand is None
    assert agent.forge.status().runners == {}
    forge.stop()
    agent.close()


def test_a_registration_that_can_not_have_runners_is_refused(room: Room) -> None:
    agent = Lab(room, registered(room))
    bad: Registration = registered(room, mode="jit")
    with pytest.raises(ConfigError, match="no labels"):
        make_runner(bad, agent.parts)
    agent.close()


def test_settings_for_runners_are_read_as_they_are_now() -> None:
    config = AgentConfig.model_validate({"github": {"only_smidr_jobs": "always"}})
    assert config.github.only_smidr_jobs == "always"
    with pytest.raises(ValueError, match="only_smidr_jobs"):
        AgentConfig.model_validate({"github": {"only_smidr_jobs": "sometimes"}})
