"""The container engine goes away under an agent and its builds, and comes back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.builds.model import BuildState
from smidr_ci.errors import FailureKind
from tests.fakes.agent_process import AgentProcess
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.private_engine import PrivateEngine
from tests.fakes.smidr_process import Smidr, wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.bitbake,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Docker Engine"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="dockerd is not installed"),
]


@pytest.fixture(scope="module", params=["live-restore", "containers end with it"])
def private(
    request: pytest.FixtureRequest,
    docker_client: APIClient,
    base_image: str,
    hello_builder_image: str,
) -> Iterator[PrivateEngine]:
    """An engine that has the images."""
    options = ["--live-restore"] if request.param == "live-restore" else []
    inspect: Any = docker_client.inspect_image  # it has no types
    tags = inspect(hello_builder_image)["RepoTags"]
    with (
        tempfile.TemporaryDirectory(prefix="smidr-engine-") as root,
        PrivateEngine(Path(root), *options) as found,
    ):
        found.load([base_image, tags[0]])
        yield found


@pytest.fixture
def agent(
    private: PrivateEngine,
    base_image: str,
    tmp_path: Path,
    make_hello_project: Callable[[Path], HelloProject],
) -> Iterator[AgentProcess]:
    project = make_hello_project(tmp_path)
    add_fault_recipes(project)
    text = project.config.read_text()
    assert "container:\n" in text
    project.config.write_text(
        text.replace("container:\n", f"container:\n  base_image: {base_image}\n", 1)
    )
    home = tmp_path / "home"
    home.mkdir()
    settings = home / "agent.yaml"
    settings.write_text(f"engine: {{url: '{private.url}'}}\n")
    settings.chmod(0o600)
    with AgentProcess(Smidr(home, project.work)) as found:
        yield found


def test_a_build_outlives_the_engine_or_ends_with_a_reason(
    agent: AgentProcess, private: PrivateEngine, request: pytest.FixtureRequest
) -> None:
    build_id = agent.submit("-t", "patient")
    wait_until(lambda: "patient waits" in _console(agent, build_id), "the recipe to wait")
    private.stop()
    private.start()
    (agent.smidr.directory / "go").touch()
    record = agent.finish(build_id)
    if "live-restore" in request.node.name:
        assert record.state is BuildState.COMPLETED, record.failure_message
        assert _console(agent, build_id).count("patient waits") == 1
    else:
        assert (record.state, record.failure_kind) == (BuildState.FAILED, FailureKind.INTERRUPTED)
        assert "stopped from outside" in record.failure_message
    assert agent.finish(agent.submit()).state is BuildState.COMPLETED


def test_a_build_waits_for_an_engine_that_is_away(
    agent: AgentProcess, private: PrivateEngine
) -> None:
    private.stop()
    build_id = agent.submit()
    wait_until(
        lambda: "engine" in agent.client.status().queued.get(build_id, ""), "the reason to wait"
    )
    assert agent.record(build_id).state is BuildState.QUEUED
    private.start()
    assert agent.finish(build_id).state is BuildState.COMPLETED


def _console(agent: AgentProcess, build_id: str) -> str:
    path = agent.console(build_id)
    return path.read_text(errors="replace") if path.exists() else ""
