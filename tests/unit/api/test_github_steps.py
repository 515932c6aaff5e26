"""A step's order is judged by GitHub's word, and reported as a check."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.api.bundles import receive_bundle
from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.github_steps import GitHubSteps, StepClaim, head_of
from smidr_ci.api.operations import Operations
from smidr_ci.api.sockets import connect_unix
from smidr_ci.errors import ForbiddenError, NotFoundError, UsageError
from smidr_ci.forges.github.assembly import forge_for
from smidr_ci.home import Home
from smidr_ci.trust import Trust
from tests.fakes.github.identity import identity_token
from tests.fakes.github.room import Room
from tests.fakes.github.server import GitHubServer, serve
from tests.fakes.github.state import SHA
from tests.fakes.http_agent import ADMIN, FakePlaces, HttpAgent
from tests.unit.forges.github.test_forge import Lab, registered


class Step:
    """One registration's steps, and a workspace with the commit of GitHub's token."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.workspace = folder / "workspace"
        (self.workspace / ".git").mkdir(parents=True)
        self.check_out(SHA)
        self.operations = Operations(
            lab.service,
            lab.service.store,
            lambda: FakePlaces(lab.home),
            partial(receive_bundle, lab.home),
        )
        self.steps = GitHubSteps(self.operations, partial(forge_for, lab.parts))

    def check_out(self, sha: str) -> None:
        (self.workspace / ".git" / "HEAD").write_text(f"{sha}\n")

    def token(self, **claims: Any) -> str:
        return identity_token(self.lab.room.server.web, datetime.now(UTC), **claims)

    def claim(self, **changes: Any) -> StepClaim:
        values: dict[str, Any] = {
            "server_url": self.lab.room.server.web,
            "repository": "acme/bsp",
            "check_name": "smidr / image",
            "workspace": self.workspace,
            "id_token": self.token(),
        }
        return StepClaim(**{**values, **changes})

    def start(
        self, claim: StepClaim | None = None, caller: Caller = ADMIN, **changes: Any
    ) -> tuple[Any, str]:
        values: dict[str, Any] = {
            "customer": "acme",
            "config_text": "name: demo\n",
            "config_name": str(self.workspace / "smidr.yaml"),
            "directory": self.workspace,
        }
        request = StartRequest(**{**values, **changes})
        started = self.steps.start(caller, request, claim or self.claim())
        order = self.lab.service.orders[-1]
        return order, started.reason


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    with serve() as server:
        yield server


@pytest.fixture
def make_step(github: GitHubServer, tmp_path: Path) -> Iterator[Callable[..., Step]]:
    labs: list[Lab] = []

    def make(**config: Any) -> Step:
        (tmp_path / "lab").mkdir()
        room = Room(github, tmp_path / "lab")
        labs.append(Lab(room, registered(room), **config))
        labs[-1].start()
        return Step(labs[-1], tmp_path)

    yield make
    for lab in labs:
        lab.close()


def test_a_push_to_a_protected_branch_is_trusted_and_has_a_check(
    make_step: Callable[..., Step],
) -> None:
    step = make_step()
    order, reason = step.start(ref="refs/heads/lie")
    assert (order.trust, order.ref) == (Trust.TRUSTED, "refs/heads/main")
    assert "trusted" in reason
    ((_, target),) = step.lab.forge.reporter._targets.all()
    assert (target.repository, target.head_sha, target.name) == ("acme/bsp", SHA, "smidr / image")
    assert target.config_path == "smidr.yaml"


@pytest.mark.parametrize(
    "claims",
    [{"ref_protected": "false"}, {"event_name": "pull_request", "ref": "refs/pull/7/merge"}],
)
def test_other_jobs_are_not_trusted_and_share_with_their_own_kind(
    make_step: Callable[..., Step], claims: dict[str, str]
) -> None:
    step = make_step()
    order, _ = step.start(step.claim(id_token=step.token(**claims)))
    assert order.trust is Trust.UNTRUSTED
    assert "acme" in order.private_cache_key or "/9" in order.private_cache_key


def test_another_commit_than_github_speaks_of_is_not_trusted(
    make_step: Callable[..., Step],
) -> None:
    step = make_step()
    step.check_out("f" * 40)
    order, reason = step.start()
    assert order.trust is Trust.UNTRUSTED
    assert "another commit" in reason


def test_a_step_can_ask_for_less_trust(make_step: Callable[..., Step]) -> None:
    order, _ = make_step().start(is_untrusted=True)
    assert order.trust is Trust.UNTRUSTED


def test_without_a_token_nothing_is_trusted(make_step: Callable[..., Step]) -> None:
    step = make_step()
    order, reason = step.start(step.claim(id_token=""))
    assert order.trust is Trust.UNTRUSTED
    assert "id-token: write" in reason


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"repository": "evil/bsp"}, {"key": "second"}]
)
def test_a_token_of_others_builds_nothing(
    make_step: Callable[..., Step], claims: dict[str, str]
) -> None:
    step = make_step()
    with pytest.raises(ForbiddenError):
        step.start(step.claim(id_token=step.token(**claims)))
    assert step.lab.service.orders == []


def test_a_fork_s_commit_with_the_rights_of_the_repository_builds_nothing(
    make_step: Callable[..., Step],
) -> None:
    step = make_step()
    step.check_out("f" * 40)
    with pytest.raises(ForbiddenError, match="use pull_request"):
        step.start(step.claim(id_token=step.token(event_name="pull_request_target")))
    assert step.lab.service.orders == []


def test_a_repository_without_registration_is_not_judged(make_step: Callable[..., Step]) -> None:
    step = make_step()
    with pytest.raises(NotFoundError):
        step.start(step.claim(server_url="https://github.example.com"))


def test_only_local_callers_are_steps_and_only_of_their_workspace(
    make_step: Callable[..., Step], tmp_path: Path
) -> None:
    step = make_step()
    with pytest.raises(UsageError):
        step.start(caller=Caller("far", Scope.ADMIN, is_local=False))
    with pytest.raises(UsageError):
        step.start(directory=tmp_path)


def test_the_commit_is_read_as_checkout_leaves_it(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    assert head_of(tmp_path) == ""
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "refs" / "heads" / "main").write_text(f"{SHA}\n")
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert head_of(tmp_path) == SHA
    (tmp_path / "secret").write_text(SHA)
    (git / "HEAD").write_text("ref: refs/heads/../../../secret\n")
    assert head_of(tmp_path) == ""
    (git / "HEAD").unlink()
    (git / "HEAD").symlink_to(tmp_path / "secret")
    assert head_of(tmp_path) == ""


def test_the_route_takes_a_step_over_the_unix_socket(
    make_step: Callable[..., Step], tmp_path: Path
) -> None:
    step = make_step()
    with HttpAgent(Home(tmp_path / "served"), github_steps=step.steps) as served:
        claim = step.claim()
        build = {
            "customer": "acme",
            "config_text": "name: demo\n" + "#" * 100_000,
            "config_name": str(step.workspace / "smidr.yaml"),
            "directory": str(step.workspace),
        }
        body = {
            "build": build,
            "step": {
                "server_url": claim.server_url,
                "repository": claim.repository,
                "check_name": claim.check_name,
                "workspace": str(claim.workspace),
                "id_token": claim.id_token,
            },
        }
        with closing(http.client.HTTPConnection("localhost")) as connection:
            connection.sock = connect_unix(served.home.socket, 30)
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/v1/github/steps", json.dumps(body), headers)
            answer = connection.getresponse()
            raw = json.loads(answer.read())
    assert answer.status == 201, raw
    assert raw["build"]["state"] == "queued"
    assert "trusted" in raw["reason"]
