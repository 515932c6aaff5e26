"""Builds that wait and are alike share one run of BitBake; what that cost and spared is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.builds.model import BuildState
from tests.fakes.agent_process import AgentProcess
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.fixture
def project(tmp_path: Path, make_hello_project: Callable[[Path], HelloProject]) -> HelloProject:
    project = make_hello_project(tmp_path)
    add_fault_recipes(project)
    return project


@pytest.fixture
def agent(tmp_path: Path, project: HelloProject) -> Iterator[AgentProcess]:
    with AgentProcess(Smidr(tmp_path / "home", project.work)) as agent:
        yield agent


def test_three_builds_one_run_three_results(
    agent: AgentProcess, project: HelloProject, docker_client: APIClient
) -> None:
    blocker = agent.submit("--customer", "same", "-t", "patient")
    wait_until(lambda: _says(agent, blocker, "patient waits"), "the first build's recipe")
    ids = [agent.submit("--customer", "same") for _ in range(3)]
    (project.work / "go").touch()
    records = [agent.wait_for(build_id) for build_id in ids]
    assert [record.state for record in records] == [BuildState.COMPLETED] * 3, records[0]
    (run,) = {record.shared_run for record in records}
    assert f"{run} is run for {', '.join(ids)}" in agent.said
    made = [path.parent.parent.name for path in agent.smidr.home.glob("builds/*/control/plan.json")]
    assert sorted(made) == sorted([blocker, run])
    assert len({agent.console(build_id).stat().st_ino for build_id in ids}) == 1
    text = agent.console(ids[0]).read_text()
    assert "Tasks Summary" in text
    for build_id in ids:
        logs = agent.smidr("client", "logs", "--build-id", build_id, "--follow")
        assert (logs.code, logs.out) == (0, text)
    assert agent.smidr("client", "delete", "--build-id", ids[0]).code == 0
    agent.smidr("client", "purge")
    wait_until(lambda: not agent.console(ids[0]).exists(), "the end of the first")
    for build_id, record in zip(ids[1:], records[1:], strict=True):
        shown = agent.smidr("artifacts", "show", build_id, "--json")
        assert shown.code == 0, shown.text
        folder = agent.smidr.home / "artifacts" / "same" / build_id
        assert all((folder / item.path).exists() for item in record.artifacts)
        assert agent.console(build_id).read_text() == text
    wait_until(lambda: agent.containers(docker_client) == [], "the end of all containers")


def test_what_sstate_spared_is_estimated_by_what_it_took(
    tmp_path: Path, make_hello_project: Callable[[Path], HelloProject]
) -> None:
    smidr = Smidr(tmp_path / "home", make_hello_project(tmp_path).work)
    first: dict[str, Any] = smidr.build()
    assert first["work"]["executed_s"] > 0
    second: dict[str, Any] = smidr.build()
    work = second["work"]
    assert work["restored"] == second["tasks"]["from_sstate"] > 0
    assert work["timed"] == work["restored"]
    assert 0 < work["spared_s"] <= first["work"]["executed_s"]
    sizes = [path.stat().st_size for path in (smidr.home / "sstate-cache").rglob("sstate:*.tgz")]
    assert 0 < work["restored_bytes"] <= sum(sizes)
    stats = json.loads(smidr("cache", "stats", "--json", "--recipes", "3").out)
    assert len(stats["recipes"]) == 3
    (reuse,) = stats["reuse"]
    assert reuse["spared_s"] == work["spared_s"]
    assert {item["name"] for item in stats["caches"]} >= {"private", "sstate"}
    shown = smidr("cache", "stats").out
    assert "What was spared is an estimate" in shown
    assert "sstate spared about" in smidr("status", second["build_id"]).out
    summary = smidr.home / "builds" / second["build_id"] / "summary.md"
    assert "Cost: tasks ran for" in summary.read_text()


def _says(agent: AgentProcess, build_id: str, text: str) -> bool:
    console = agent.console(build_id)
    return console.exists() and text in console.read_text(errors="replace")
