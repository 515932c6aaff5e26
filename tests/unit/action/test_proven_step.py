"""The action with an agent that is registered with GitHub: identity token, checks, uploads."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smidr_ci.api.github_steps import GitHubSteps
from smidr_ci.builds.model import BuildState
from smidr_ci.forges.github.assembly import forge_for
from smidr_ci.forges.github.rendering import annotated, annotation_list
from smidr_ci.forges.github.targets import CheckTarget
from smidr_ci.forges.parts import Parts
from smidr_ci.home import Home
from smidr_ci.trust import Trust
from tests.fakes.certificates import Authority
from tests.fakes.forward_proxy import serve_proxy
from tests.fakes.github.identity import TokenService, identity_token
from tests.fakes.github.results import runtime_token
from tests.fakes.github.room import Room
from tests.fakes.github.server import GitHubServer, serve
from tests.fakes.github.state import SHA
from tests.fakes.http_agent import HttpAgent
from tests.fakes.step_harness import Workspace, node
from tests.unit.forges.github.test_forge import Lab, registered

INPUTS = {"config": "smidr.yaml"}


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    node()
    with serve() as server:
        yield server


@pytest.fixture
def lab(github: GitHubServer, tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    room = Room(github, tmp_path / "lab")
    made = Lab(room, registered(room))
    made.start()
    yield made
    made.close()


@pytest.fixture
def tokens(github: GitHubServer) -> Iterator[TokenService]:
    service = TokenService(identity_token(github.web, datetime.now(UTC)))
    yield service
    service.close()


@pytest.fixture
def workspace(tmp_path: Path, github: GitHubServer) -> Workspace:
    found = Workspace(tmp_path)
    (found.checkout / "smidr.yaml").write_text("name: demo\n")
    (found.checkout / ".git").mkdir()
    (found.checkout / ".git" / "HEAD").write_text(f"{SHA}\n")
    found.environment |= {
        "GITHUB_SERVER_URL": github.web,
        "GITHUB_REPOSITORY": "acme/bsp",
        "ACTIONS_RUNTIME_TOKEN": runtime_token(),
        "ACTIONS_RESULTS_URL": github.web,
    }
    return found


@pytest.fixture
def served(lab: Lab, workspace: Workspace) -> Iterator[HttpAgent]:
    agent = HttpAgent(Home(workspace.root / "home" / ".smidr"))
    parts: Parts = lab.parts
    steps = GitHubSteps(agent.operations, lambda web, name: forge_for(parts, web, name))
    agent.github_steps = steps
    with agent:
        yield agent


def test_the_job_s_token_proves_its_build_and_is_seen_by_nobody_else(
    served: HttpAgent, workspace: Workspace, tokens: TokenService
) -> None:
    place = f"http://127.0.0.1:{tokens.server.server_port}/token?api-version=2"
    step = workspace.start(
        INPUTS,
        ACTIONS_ID_TOKEN_REQUEST_URL=place,
        ACTIONS_ID_TOKEN_REQUEST_TOKEN="bearer-of-the-runner",
    )
    step.wait_for("is queued by the agent")
    build_id = served.agent.store.list()[0].build_id
    served.agent.finish(build_id)
    result = step.result()
    assert result.code == 0, result.raw
    assert served.agent.orders[0].trust is Trust.TRUSTED
    assert tokens.asked == [("/token?api-version=2&audience=smidr", "Bearer bearer-of-the-runner")]
    assert [item.data for item in result.commands.all("add-mask")] == [tokens.value]
    assert tokens.value not in result.text
    assert "bearer-of-the-runner" not in result.raw
    assert "bearer-of-the-runner" not in json.dumps(served.agent.orders[0].to_json())


def test_the_token_is_fetched_through_the_proxy_of_the_job(
    served: HttpAgent, workspace: Workspace, tokens: TokenService, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key, _ = authority.issue("tokens.example", alternative=("tokens.example",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    tokens.server.socket = context.wrap_socket(tokens.server.socket, server_side=True)
    with serve_proxy(tokens.server.server_port) as proxy:
        step = workspace.start(
            INPUTS,
            ACTIONS_ID_TOKEN_REQUEST_URL="https://tokens.example/token?api-version=2",
            ACTIONS_ID_TOKEN_REQUEST_TOKEN="bearer-of-the-runner",
            HTTPS_PROXY=proxy.url,
            NO_PROXY="github.example,localhost",
            NODE_EXTRA_CA_CERTS=str(authority.path),
        )
        step.wait_for("is queued by the agent")
        served.agent.finish(served.agent.store.list()[0].build_id)
        result = step.result()
    assert result.code == 0, result.raw
    assert served.agent.orders[0].trust is Trust.TRUSTED, result.raw
    assert proxy.asked == ["CONNECT tokens.example:443 HTTP/1.1"]
    assert tokens.asked == [("/token?api-version=2&audience=smidr", "Bearer bearer-of-the-runner")]


def test_of_25_errors_ten_are_annotations_of_the_step_and_all_of_the_check(
    served: HttpAgent, workspace: Workspace
) -> None:
    common = {"category": "compile", "severity": "error", "repo_path": "smidr.yaml"}
    found = tuple(
        {**common, "message": f"error {number}", "line": number + 1} for number in range(25)
    )
    step = workspace.start(INPUTS)
    step.wait_for("is queued by the agent")
    build_id = served.agent.store.list()[0].build_id
    record = served.agent.change(build_id, state=BuildState.FAILED, exit_code=1, findings=found)
    result = step.result()
    assert len(result.errors) == 10
    assert "15 more findings" in result.text
    target = CheckTarget("acme/bsp", SHA, "smidr / image", directory=str(workspace.checkout))
    listed = annotation_list(record, target, annotated(record, target))
    assert [item["start_line"] for item in listed] == list(range(1, 26))


def test_without_the_permission_the_build_is_not_trusted_and_the_log_says_why(
    served: HttpAgent, workspace: Workspace
) -> None:
    step = workspace.start(INPUTS)
    step.wait_for("is queued by the agent")
    served.agent.finish(served.agent.store.list()[0].build_id)
    result = step.result()
    assert served.agent.orders[0].trust is Trust.UNTRUSTED
    assert "id-token: write" in result.text


def test_chosen_artifacts_are_uploaded_to_the_run_by_the_agent(
    served: HttpAgent, workspace: Workspace
) -> None:
    inputs = {**INPUTS, "upload": "true", "artifacts": "images/*.wic"}
    step = workspace.start(inputs)
    step.wait_for("is queued by the agent")
    build_id = served.agent.store.list()[0].build_id
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"images/a.wic": b"abc" * 1000, "images/b.txt": b"x"})
    served.agent.finish(build_id)
    result = step.result()
    assert result.code == 0, result.raw
    assert any("images/a.wic is artifact" in line for line in result.commands.groups["Upload"])
    assert not any("b.txt" in line for line in result.commands.groups["Upload"])
    assert not result.warnings
    assert workspace.environment["ACTIONS_RUNTIME_TOKEN"] not in result.raw


def test_an_upload_that_github_refuses_is_a_warning(
    served: HttpAgent, workspace: Workspace
) -> None:
    token = runtime_token("Actions.GenericRead:x")
    step = workspace.start({**INPUTS, "upload": "true"}, ACTIONS_RUNTIME_TOKEN=token)
    step.wait_for("is queued by the agent")
    build_id = served.agent.store.list()[0].build_id
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"a.wic": b"abc"})
    served.agent.finish(build_id)
    result = step.result()
    assert result.code == 0
    assert len(result.warnings) == 1
    assert token not in result.raw
