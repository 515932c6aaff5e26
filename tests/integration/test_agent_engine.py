"""The Docker daemon stops, dies and comes back under an agent with builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.errors import FailureKind
from tests.fakes.agent_process import AgentProcess
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.private_engine import PrivateEngine, why_not_here
from tests.fakes.smidr_process import Smidr, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_SOON_S = 60.0


@dataclass
class Site:
    """An agent whose containers run in a Docker daemon of this test's own."""

    agent: AgentProcess
    engine: PrivateEngine
    project: HelloProject

    @property
    def go(self) -> Path:
        """The file that `patient` waits for."""
        return self.project.work / "go"

    def start_patient(self, customer: str) -> str:
        """A build that waits in its container."""
        build_id = self.agent.submit("--customer", customer, "-t", "patient")
        console = self.agent.console(build_id)

        def is_waiting() -> bool:
            assert not self.agent.record(build_id).state.is_final, self.agent.record(build_id)
            return console.exists() and "patient waits" in console.read_text()

        wait_until(is_waiting, f"{build_id} to wait")
        return build_id

    def build(self, customer: str) -> BuildRecord:
        """A short build, to its end."""
        return self.agent.finish(self.agent.submit("--customer", customer, "-t", "motd"))

    def check_that_nothing_is_left(self) -> None:
        with self.engine.client() as client:
            wait_until(lambda: self.agent.containers(client) == [], "no container", _SOON_S)
        assert list(self.agent.smidr.home.glob("builds/*/checkpoint.json")) == []


@pytest.fixture(scope="module")
def module_site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    if reason := why_not_here():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("daemon")
    project = make_hello_project(root)
    add_fault_recipes(project)
    recipe = project.layer / "recipes" / "faults" / "patient_1.0.bb"
    # Else it would come from shared state once it was built.
    recipe.write_text(f'{recipe.read_text()}do_compile[nostamp] = "1"\n')
    project.prepare()
    smidr = Smidr(root / "home", project.work)
    inspect: Any = docker_client.inspect_image  # it has no types
    image = inspect(smidr.build("-t", "motd")["image"])
    bases = [item["RepoTags"][0] for item in docker_client.images("smidr-base")]
    with PrivateEngine(root / "engine") as engine:
        engine.start()
        for tag in (image["RepoTags"][0], *bases):
            engine.load(docker_client, tag)
        (smidr.home / "agent.yaml").write_text(f"engine: {{url: '{engine.url}'}}\n")
        with AgentProcess(smidr) as agent:
            yield Site(agent, engine, project)


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    module_site.go.unlink(missing_ok=True)
    yield module_site
    module_site.go.touch()


def test_with_live_restore_a_build_outlives_the_daemons_restart(site: Site) -> None:
    site.engine.stop()
    site.engine.start(has_live_restore=True)
    build_id = site.start_patient("outlives")
    site.engine.stop()
    assert site.agent.record(build_id).state is BuildState.BUILDING
    site.engine.start(has_live_restore=True)
    site.go.touch()
    record = site.agent.finish(build_id)
    assert record.state is BuildState.COMPLETED, record.failure_message
    assert site.agent.console(build_id).read_text().count("Tasks Summary") == 1
    site.check_that_nothing_is_left()


def test_with_live_restore_a_build_ends_while_the_daemon_is_away(site: Site) -> None:
    site.engine.stop()
    site.engine.start(has_live_restore=True)
    build_id = site.start_patient("meanwhile")
    site.engine.kill()
    site.go.touch()
    result = site.agent.console(build_id).with_name("result.json")
    wait_until(result.exists, "the end of BitBake")
    site.engine.start(has_live_restore=True)
    record = site.agent.finish(build_id)
    assert record.state is BuildState.COMPLETED, record.failure_message
    site.check_that_nothing_is_left()


def test_agent_and_daemon_die_and_the_build_goes_on(site: Site) -> None:
    site.engine.stop()
    site.engine.start(has_live_restore=True)
    build_id = site.start_patient("both")
    site.engine.kill()
    site.agent.kill()
    site.agent.start()
    wait_until(lambda: site.agent.client.status().problems, "a word about the engine")
    assert site.agent.record(build_id).state is BuildState.BUILDING
    site.engine.start(has_live_restore=True)
    site.go.touch()
    record = site.agent.finish(build_id)
    assert record.state is BuildState.COMPLETED, record.failure_message
    assert site.agent.console(build_id).read_text().count("Tasks Summary") == 1
    site.check_that_nothing_is_left()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_without_live_restore_a_build_ends_as_interrupted(site: Site, way: str) -> None:
    site.engine.stop()
    site.engine.start()
    build_id = site.start_patient(f"interrupted-{way}")
    (site.engine.stop if way == "stop" else site.engine.kill)()
    site.engine.start()
    record = site.agent.finish(build_id, _SOON_S)
    assert record.state is BuildState.FAILED
    assert record.failure_kind is FailureKind.INTERRUPTED, record.failure_message
    assert "stopped from outside" in record.failure_message
    assert site.build("afterwards").state is BuildState.COMPLETED
    site.check_that_nothing_is_left()


def test_builds_wait_with_the_reason_while_there_is_no_daemon(site: Site) -> None:
    site.engine.stop()
    site.agent.stop()
    site.agent.start()
    build_id = site.agent.submit("--customer", "waits", "-t", "motd")
    client = site.agent.client
    wait_until(lambda: "engine" in client.status().queued.get(build_id, ""), "the reason")
    assert "container engine does not answer" in site.agent.smidr("daemon", "status").out
    assert "container engine does not answer" in site.agent.smidr("status", build_id).out
    assert site.agent.record(build_id).state is BuildState.QUEUED
    site.engine.start()
    record = site.agent.finish(build_id, _SOON_S)
    assert record.state is BuildState.COMPLETED, record.failure_message
    wait_until(lambda: client.status().problems == (), "no more problems")
    site.check_that_nothing_is_left()
