"""A whole registration at work, and how it is registered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.agent.outbox import Outbox
from smidr_ci.builds.database import Database
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.builds.order import Order
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import ConfigError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.assembly import forge_for, make_deliverers, make_runner
from smidr_ci.forges.github.forge import GitHubForge
from smidr_ci.forges.github.options import GitHubOptions, hooks_of
from smidr_ci.forges.github.registering import app_manifest, register, verify
from smidr_ci.forges.github.targets import CheckTarget
from smidr_ci.forges.github.webhooks import Webhooks
from smidr_ci.forges.parts import Parts
from smidr_ci.forges.registration import Registration, Registrations
from smidr_ci.forges.seats import Seats
from smidr_ci.home import Home
from smidr_ci.trust import Trust
from tests.fakes.build_service import FakeBuildService
from tests.fakes.github.hooks import HOOK_SECRET, hook
from tests.fakes.github.results import runtime_token
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import APP_ID, SHA
from tests.unit.forges.github.test_trust import FORK, MERGE, PUSH
from tests.unit.forges.github.test_webhooks import check_run


def registered(room: Room, **settings: Any) -> Registration:
    made = {"app_id": str(APP_ID), "app_key_file": str(room.key_file()), **settings}
    return Registration("lab", "github", room.server.url, "", settings=made)


class Lab:
    """An agent's parts around one registration."""

    def __init__(self, room: Room, registration: Registration, **config: Any) -> None:
        self.room = room
        self.home = Home(room.folder)
        self.service = FakeBuildService(self.home)
        self.database = Database(self.home.database)
        self.outbox = Outbox(self.database, room.clock, jitter=lambda: 0.0)
        agent = AgentConfig.model_validate(config)
        host = Host(self.home, agent, {}, clock=room.clock)
        seats = Seats(lambda _count: None, clock=room.clock)
        self.parts = Parts(lambda: host, self.service, self.outbox, seats)
        self.forge: GitHubForge = make_runner(registration, self.parts)
        for prefix, deliverer in make_deliverers(registration, self.parts).items():
            self.outbox.register(prefix, deliverer)

    def start(self) -> None:
        self.outbox.start()
        self.forge.start()

    def close(self) -> None:
        self.forge.stop()
        self.outbox.stop()
        self.database.close()
        self.service.close()

    def build(self) -> str:
        order = Order("acme", "name: demo\n", "smidr.yaml", self.home.root, ("core-image",))
        build_id = self.service.submit(order).build_id
        self.forge.reporter.begin(build_id, CheckTarget("acme/bsp", SHA, "smidr / qemu"))
        return build_id


@pytest.fixture
def lab(room: Room) -> Iterator[Lab]:
    made = Lab(room, registered(room))
    yield made
    made.close()


def test_a_registration_reports_a_build_and_takes_a_cancel_without_any_port(
    lab: Lab, github: GitHubServer
) -> None:
    github.state.roles["alice"] = "write"
    lab.start()
    build_id = lab.build()
    github.wait_until(lambda: len(github.state.checks) == 1)
    assert any(lab.outbox.flush(5) for _ in range(10))
    (run,) = github.state.checks.values()
    payload = check_run("requested_action", requested_action={"identifier": "cancel"})
    payload["check_run"] = {"id": run["id"]}
    with github.lock:
        github.state.add_delivery("check_run", payload)
    lab.forge.stop()  # its poller looks every minute; the next process at once
    lab.forge = make_runner(lab.forge.registration, lab.parts)
    for prefix, deliverer in make_deliverers(lab.forge.registration, lab.parts).items():
        lab.outbox.register(prefix, deliverer)
    lab.forge.start()
    github.wait_until(lambda: run["conclusion"] == "cancelled")
    assert [item[:2] for item in lab.service.cancelled] == [
        (build_id, "alice cancelled it on GitHub")
    ]
    assert lab.forge.status().state == "asking"
    assert forge_for(lab.parts, github.web, "acme/bsp") is lab.forge
    assert forge_for(lab.parts, github.web, "acme/other") is None
    assert forge_for(lab.parts, "https://github.com", "acme/bsp") is None


def test_failed_webhooks_are_sent_again_when_the_agent_starts(
    room: Room, github: GitHubServer
) -> None:
    secret = room.folder / "hook-secret"
    secret.write_text(HOOK_SECRET)
    secret.chmod(0o600)
    for _ in range(3):
        github.state.add_delivery("check_run", check_run())
    made = Lab(room, registered(room, webhook_secret_file=str(secret)))
    made.start()
    github.wait_until(lambda: len(github.state.attempts) == 3)
    made.close()
    assert len(set(github.state.attempts)) == 3


def test_what_a_job_may_do_is_judged_by_the_agents_settings(room: Room) -> None:
    made = Lab(room, registered(room), github={"forks": "approve"})
    assert made.forge.judge(PUSH, SHA).trust is Trust.TRUSTED
    assert made.forge.judge(FORK, MERGE).needs_approval
    made.forge.approvals.add(FORK.repository, FORK.head_sha, "alice")
    verdict = made.forge.judge(FORK, MERGE)
    assert (verdict.is_allowed, verdict.trust) == (True, Trust.UNTRUSTED)
    assert "alice" in verdict.reason
    made.close()


def test_a_held_commit_shows_one_check_with_a_button(lab: Lab, github: GitHubServer) -> None:
    target = CheckTarget("acme/bsp", SHA, "smidr / qemu", "https://ci.acme.example/1")
    lab.forge.hold(target, "the commit is from <b>mallory</b>/bsp")
    lab.forge.hold(target, "the commit is from mallory/bsp")
    (run,) = github.state.checks.values()
    assert (run["status"], run["conclusion"]) == ("completed", "action_required")
    assert [item["identifier"] for item in run["actions"]] == ["approve"]
    assert "<b>" not in run["output"]["summary"]


def test_artifacts_of_a_build_go_up_through_the_registration(
    lab: Lab, github: GitHubServer
) -> None:
    (lab.home.root / "x.txt").write_text("x")
    uploads = lab.forge.uploads(runtime_token(), github.web, "acme-1", CancelToken(), print)
    report = uploads.run(lab.home.root, [ArtifactRecord("x.txt", 1, "0" * 64)])
    assert report.warnings == ()
    assert "x.txt" in github.results.artifacts


def test_an_app_is_registered_once_github_knows_it(room: Room, github: GitHubServer) -> None:
    home = Home(room.folder)
    given = {"actions": "write", "checks": "write", "contents": "read", "metadata": "read"}
    github.state.app_permissions = given
    checked = register(registered(room), home, clock=room.clock, pause=room.pause)
    assert checked.warnings == ("the App lacks the permission pull_requests: read",)
    stored = Registrations(home).load("lab")
    assert stored.settings["app_id"] == str(APP_ID)
    assert stored.token == ""
    text = (room.folder / "registrations" / "lab.json").read_text()
    assert "PRIVATE KEY" not in text
    assert GitHubOptions.of(stored).app_key_file == room.folder / "app.pem"


def test_an_app_that_is_elsewhere_is_not_registered(room: Room, github: GitHubServer) -> None:
    github.state.installations.clear()
    home = Home(room.folder)
    with pytest.raises(ForgeError, match="find the App at acme/bsp"):
        register(registered(room), home, clock=room.clock, pause=room.pause)
    assert Registrations(home).load_all() == ([], [])


def test_a_plain_token_is_registered_with_a_word_about_what_it_can_not_do(
    room: Room, github: GitHubServer
) -> None:
    token = room.folder / "token"
    token.write_text(github.state.plain_token())
    token.chmod(0o600)
    plain = Registration("lab", "github", github.url, "", api_token_file=token)
    (warning,) = verify(plain, clock=room.clock, pause=room.pause).warnings
    assert "commit statuses" in warning
    github.faults.append(Fault("GET /repos/acme/bsp", status=404))
    with pytest.raises(ForgeError):
        verify(plain, clock=room.clock, pause=room.pause)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"app_id": "1"},
        {"app_key_file": "/key"},
        {"app_id": "a b", "app_key_file": "/key"},
        {"app_id": 7, "app_key_file": "/key"},
        {"app_id": "1", "app_key_file": "/key", "public_url": "javascript:x"},
        {"app_id": "1", "app_key_file": "/key", "token_issuer": "http://evil.example"},
    ],
)
def test_settings_of_no_use_are_refused(settings: dict[str, Any]) -> None:
    registration = Registration("lab", "github", "https://github.com/acme", "", settings=settings)
    with pytest.raises(ConfigError, match="registration lab"):
        GitHubOptions.of(registration)


def test_webhooks_follow_the_registrations(room: Room, tmp_path: Path) -> None:
    home = Home(tmp_path)
    hooks = hooks_of(home)
    assert hooks() == ()
    secret = tmp_path / "hook-secret"
    secret.write_text(HOOK_SECRET)
    secret.chmod(0o600)
    Registrations(home).save(registered(room, webhook_secret_file=str(secret)))
    Registrations(home).save(replace(registered(room), name="no-hooks"))
    Registrations(home).save(replace(registered(room), name="bad", settings={"app_id": "1"}))
    ((made),) = hooks()
    assert (made.prefix, made.site.repository) == ("github:lab:", "acme/bsp")
    database = Database(home.database)
    webhooks = Webhooks(hooks, Outbox(database, room.clock))
    headers, body = hook("check_run", check_run())
    plain = {name.lower(): value for name, value in headers.items()}
    assert webhooks.receive(plain, body).status == 202
    Registrations(home).remove("lab")
    assert webhooks.receive(plain, body).status == 401
    database.close()


def test_the_manifest_of_an_app_asks_for_no_more_than_is_needed() -> None:
    made = app_manifest("smidr-acme", webhook_url="https://ci.acme.example/webhooks/github")
    assert "administration" not in made["default_permissions"]
    assert made["default_permissions"]["contents"] == "read"
    assert made["public"] is False
    runners = app_manifest("x", for_runners="organization")["default_permissions"]
    assert runners["organization_self_hosted_runners"] == "write"
