"""The action as GitHub's runner runs it, with real agents, real BitBake and containers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker import APIClient

from smidr_ci.home import Home
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Running, Smidr, kill_hard, wait_until
from tests.fakes.step_harness import ACTION, StepResult, Workspace, node

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

INPUTS = {"config": "smidr.yaml"}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> HelloProject:
    node()
    assert docker_client.ping()
    found = make_hello_project(tmp_path_factory.mktemp("action"))
    add_fault_recipes(found)
    return found


@pytest.fixture(scope="module")
def smidr(tmp_path_factory: pytest.TempPathFactory, project: HelloProject) -> Smidr:
    return Smidr(tmp_path_factory.mktemp("home"), project.work)


@pytest.fixture
def workspace(tmp_path: Path, project: HelloProject, smidr: Smidr) -> Workspace:
    """The project is what the job has checked out; the layers come from git, as most do."""
    found = Workspace(tmp_path, {"SMIDR_HOME": str(smidr.home)})
    found.checkout.rmdir()
    found.checkout.symlink_to(project.work)
    return found


@contextmanager
def running_agent(smidr: Smidr) -> Iterator[Running]:
    """`smidr daemon`, ready; ended in any case."""
    with (smidr.home / "agent.log").open("a") as output:
        process = smidr.start("daemon", output=output)
        try:
            socket = Home(smidr.home).socket
            wait_until(lambda: socket.exists() and smidr("daemon", "status").code == 0, "the agent")
            yield process
        finally:
            if process.poll() is None:
                kill_hard(process)
            socket.unlink(missing_ok=True)


def console_of(smidr: Smidr, build_id: str) -> list[str]:
    log = smidr.home / "builds" / build_id / "control" / "console.log"
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()]


def shown_console(result: StepResult) -> list[str]:
    found = [
        line
        for title, lines in result.commands.groups.items()
        if title.startswith("Building")
        for line in lines
    ]
    return [line for line in found if line.strip() and not line.startswith("smidr: ")]


def test_a_step_builds_with_the_host_s_agent(smidr: Smidr, workspace: Workspace) -> None:
    with running_agent(smidr):
        result = workspace.run({**INPUTS, "target": "hello-image", "artifacts": "**/*.cpio.gz"})
        assert result.code == 0, result.raw
        build_id = result.outputs["build-id"]
        assert smidr("status", build_id, "--json").json["state"] == "completed"
    assert build_id.startswith("acme-bsp-")
    assert shown_console(result) == console_of(smidr, build_id)
    images = json.loads(result.outputs["images"])
    assert images
    assert all(Path(image).is_file() and image.endswith(".cpio.gz") for image in images)
    assert result.outputs["result"] == "completed"
    assert "hello-image" in result.summary
    assert not result.errors
    post = workspace.post(result)
    assert (post.code, post.commands.shown) == (0, [])


def test_a_build_that_fails_fails_the_step_with_its_cause(
    smidr: Smidr, workspace: Workspace
) -> None:
    with running_agent(smidr):
        result = workspace.run({**INPUTS, "target": "broken", "customer": "broken"})
    assert result.code == 1
    assert result.outputs["result"] == "failed"
    assert 1 <= len(result.errors) <= 10
    assert "broken" in result.errors[0].properties["title"]
    assert "no_such_name" in result.errors[0].data
    assert "no_such_name" in result.summary


def test_a_cancelled_step_leaves_nothing_running(
    smidr: Smidr, workspace: Workspace, docker_client: APIClient
) -> None:
    with running_agent(smidr):
        step = workspace.start({**INPUTS, "target": "patient", "customer": "cancelled"})
        step.wait_for("patient waits")
        step.cancel()
        assert step.process.returncode == 130, "the runner had to kill it"
        result = step.result()
        post = workspace.post(result)
        assert post.code == 0
        build_id = result.outputs["build-id"]
        assert smidr("status", build_id, "--json").json["state"] == "cancelled"
    running = docker_client.containers(filters={"label": f"smidr.build={build_id}"})
    assert running == []


def test_lines_come_once_when_the_agent_is_killed_and_started_again(
    smidr: Smidr, workspace: Workspace, project: HelloProject
) -> None:
    go = project.work / "go"
    with running_agent(smidr) as agent:
        step = workspace.start({**INPUTS, "target": "patient", "customer": "killed"})
        step.wait_for("patient waits")
        kill_hard(agent)
        go.touch()  # BitBake goes on, and says more, while nobody follows it
        step.wait_for("The agent does not answer")
    try:
        with running_agent(smidr):
            result = step.result()
    finally:
        go.unlink()
    assert result.code == 0, result.raw
    assert shown_console(result) == console_of(smidr, result.outputs["build-id"])
    assert sum("patient waits" in line for line in result.commands.shown) == 1


def test_without_an_agent_the_step_has_one_of_its_own(
    tmp_path: Path, smidr: Smidr, workspace: Workspace
) -> None:
    python = python_with_smidr(tmp_path / "installed")
    workspace.environment["SMIDR_ACTION_PYTHON"] = str(python)
    inputs = {**INPUTS, "target": "hello-image", "customer": "alone"}
    result = workspace.run(inputs)
    assert result.code == 0, result.raw
    assert shown_console(result) == console_of(smidr, result.outputs["build-id"])
    assert json.loads(result.outputs["images"])
    assert "hello-image" in result.summary
    post = workspace.post(result)
    assert post.code == 0
    wait_until(lambda: not Home(smidr.home).socket.exists(), "the end of the step's agent")


def test_a_cancelled_step_takes_its_own_agent_with_it(
    tmp_path: Path, smidr: Smidr, workspace: Workspace
) -> None:
    python = python_with_smidr(tmp_path / "installed")
    workspace.environment["SMIDR_ACTION_PYTHON"] = str(python)
    step = workspace.start({**INPUTS, "target": "stubborn", "customer": "alonecancelled"})
    step.wait_for("stubborn ignores signals")
    step.cancel()
    assert step.process.returncode == 130, "the runner had to kill it"
    result = step.result()
    assert result.code == 130
    assert workspace.post(result).code == 0
    wait_until(lambda: not Home(smidr.home).socket.exists(), "the end of the step's agent")
    record = smidr("status", result.outputs["build-id"], "--json").json
    assert record["state"] == "cancelled"


def copied_action(folder: Path) -> Path:
    """The action as the runner has it: a checkout of its own, which nobody changes."""
    for name in ("action", "smidr_ci", "action.yml", "pyproject.toml", "README.md", "LICENSE"):
        source = ACTION / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=unwanted)
        else:
            shutil.copy(source, folder / name)
    return folder


def test_the_action_installs_itself_once_where_nothing_is_installed(
    tmp_path: Path, smidr: Smidr, workspace: Workspace
) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-q",
        "-d",
        str(tmp_path),
        "click",
    ]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no package index answers: nothing can be installed")
    (tmp_path / "action").mkdir()
    workspace.action = copied_action(tmp_path / "action")
    workspace.environment |= {"pythonLocation": sys.base_prefix}
    for attempt in range(2):
        result = workspace.run({**INPUTS, "target": "hello", "customer": "installed"})
        assert result.code == 0, result.raw
        assert ("Installing smidr" in result.commands.groups) == (attempt == 0)
        assert shown_console(result) == console_of(smidr, result.outputs["build-id"])
        workspace.post(result)
        wait_until(lambda: not Home(smidr.home).socket.exists(), "the end of the step's agent")


def python_with_smidr(folder: Path) -> Path:
    """A program that is this Python with this checkout: the step must not see a PYTHONPATH."""
    folder.mkdir()
    program = folder / "python"
    root = Path(__file__).resolve().parents[2]
    program.write_text(f"#!/bin/sh\nshift\nPYTHONPATH='{root}' exec '{sys.executable}' -P \"$@\"\n")
    program.chmod(0o755)
    return program
