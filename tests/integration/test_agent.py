"""Builds by the agent: how commands use it, here and over TCP, and how it ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from docker import APIClient

from smidr_ci.builds.model import BuildState
from tests.fakes.agent_process import AgentProcess
from tests.fakes.fault_recipes import add_fault_recipes
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Answer, Running, Smidr, kill_hard, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_LOOPBACK = "127.0.0.1:0"


@dataclass
class Site:
    """An agent that also listens on loopback, and a project whose recipes wait."""

    agent: AgentProcess
    project: HelloProject
    docker: APIClient

    @property
    def smidr(self) -> Smidr:
        return self.agent.smidr

    def client(self, *arguments: str) -> Answer:
        """`smidr client`, which must succeed."""
        answer = self.smidr("client", *arguments)
        assert answer.code == 0, answer.text
        return answer

    def address(self, scheme: str) -> str:
        """Where the agent listens by that protocol, `HOST:PORT`."""
        places = self.agent.client.status().listening
        return next(place for place in places if place.startswith(scheme)).partition("://")[2]

    def start(self, target: str, customer: str) -> Running:
        """`smidr build` in the background; back when its recipe says that it waits."""
        running = self.smidr.start("build", "-t", target, "--customer", customer)
        self.wait_for_console(customer, f"{target} ")
        return running

    def wait_for_console(self, customer: str, text: str) -> None:
        def is_said() -> bool:
            console = self.agent.console(self.newest(customer))
            return console.exists() and text in console.read_text(errors="replace")

        wait_until(is_said, f"{text!r} in the console of {customer}")

    def newest(self, customer: str) -> str:
        """The id of the customer's newest build; no build's while there is none."""
        found = self.agent.client.list(limit=1, customer=customer)
        return found[0].build_id if found else "none"

    def let_go(self) -> None:
        """What is `patient` may end."""
        (self.project.work / "go").touch()

    def write(self, name: str, old: str, new: str) -> str:
        """A config with one change; its name."""
        text = self.project.config.read_text()
        assert old in text
        (self.project.work / name).write_text(text.replace(old, new, 1))
        return name


@pytest.fixture(scope="module")
def module_site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("agent")
    project = make_hello_project(root)
    add_fault_recipes(project)
    recipe = project.layer / "recipes" / "faults" / "patient_1.0.bb"
    # Else it would come from shared state once it was built.
    recipe.write_text(f'{recipe.read_text()}do_compile[nostamp] = "1"\n')
    project.prepare()
    smidr = Smidr(root / "home", project.work)
    agent = AgentProcess(smidr, "--address", _LOOPBACK, "--http-address", _LOOPBACK)
    with agent:
        yield Site(agent, project, docker_client)


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """An agent that runs, and afterwards no container that a test has left."""
    (module_site.smidr.home / "agent.yaml").unlink(missing_ok=True)
    if not module_site.agent.is_running():
        module_site.agent.start()
    yield module_site
    module_site.let_go()
    wait_until(lambda: module_site.agent.containers(module_site.docker) == [], "the end of all")
    (module_site.project.work / "go").unlink()


def test_a_build_command_asks_the_agent_and_shows_what_it_does(site: Site) -> None:
    answer = site.smidr("build", "--customer", "shown")
    assert answer.code == 0, answer.text
    build_id = site.newest("shown")
    assert f"build {build_id} is the agent's" in answer.err
    assert "building" in answer.err
    assert "hello-image" in answer.out
    record = site.agent.record(build_id)
    assert (record.is_resumable, record.state) == (True, BuildState.COMPLETED)
    status = site.smidr("status", build_id, "--json").json
    assert (status["build_id"], status["state"]) == (build_id, "completed")


def test_start_follow_and_all_that_can_be_asked_of_a_build(site: Site, tmp_path: Path) -> None:
    answer = site.client("start", "--customer", "asked", "--follow")
    build_id = site.newest("asked")
    assert answer.out == f"Build ID: {build_id}\n"
    assert "building" in answer.err
    one = ("--build-id", build_id)
    assert "completed" in site.client("status", *one).out
    console = site.agent.console(build_id).read_text()
    assert site.client("logs", "--follow", *one).out == console
    last = "".join(console.splitlines(keepends=True)[-2:])
    assert site.client("logs", "--tail", "2", *one).out == last
    listed = site.client("list", "--customer", "asked", "--json").json["builds"]
    assert [item["build_id"] for item in listed] == [build_id]
    artifacts = site.client("artifacts", "list", *one, "--json").json["artifacts"]
    assert artifacts
    site.client("artifacts", "download", *one, "-o", str(tmp_path))
    stored = site.smidr.home / "artifacts" / "asked" / build_id
    for item in artifacts:
        assert (tmp_path / item["path"]).read_bytes() == (stored / item["path"]).read_bytes()


def test_start_prints_one_line_and_cancel_comes_back_when_it_is_over(site: Site) -> None:
    build_id = site.agent.submit("--customer", "cancelled", "-t", "patient")
    site.wait_for_console("cancelled", "patient waits")
    site.let_go()
    answer = site.client("cancel", "--build-id", build_id)
    assert answer.out == f"{build_id} is cancelled.\n"
    assert site.agent.record(build_id).failure_message.startswith("Cancelled by")


@pytest.fixture(scope="module")
def far_project(module_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that can travel: all layers lie in it."""
    folder = tmp_path_factory.mktemp("far")
    source = module_site.project.bitbake.rpartition("@")[0]
    subprocess.run(["git", "clone", "-q", source, folder / "bitbake"], check=True)
    shutil.rmtree(folder / "bitbake" / ".git")
    shutil.copytree(module_site.project.layer, folder / "meta-hello")
    config = yaml.safe_load(module_site.project.config.read_text())
    config["layers"] = [
        {"name": "bitbake", "path": "bitbake", "layers": []},
        {"name": "meta-hello", "path": "meta-hello"},
    ]
    config["build"] = {"image": "motd"}
    for name in ("directories", "artifacts"):
        config.pop(name, None)
    (folder / "smidr.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_far_client_sends_its_layers_along(site: Site, far_project: Path, scheme: str) -> None:
    """On the same host, over TCP: the local token lets it in."""
    address = site.address(scheme)
    far = replace(site.smidr, directory=far_project)
    address = address if scheme == "grpc" else f"http://{address}"
    answer = far("client", "start", "--address", address, "--customer", "far", "--follow")
    assert answer.code == 0, answer.text
    record = site.agent.record(answer.out.removeprefix("Build ID: ").strip())
    assert record.state is BuildState.COMPLETED
    assert set(record.layer_commits) == {"bitbake", "meta-hello"}
    assert not Path(record.config_path).is_absolute()


def test_a_token_lets_a_stranger_in_and_nothing_else_does(
    site: Site, far_project: Path, tmp_path: Path
) -> None:
    name = f"token-{site.agent.pid}"
    made = site.smidr("token", "create", name, "--scope", "build", "--json")
    assert made.code == 0, made.text
    stranger = Smidr(tmp_path / "home", far_project)
    command = ("client", "start", "--address", site.address("grpc"), "--customer", "token")
    for token in ("", "smidr_wrong", f"{made.json['token']}x"):
        refused = stranger(*command, **({"SMIDR_TOKEN": token} if token else {}))
        assert refused.code != 0
        assert "token" in refused.err
    answer = stranger(*command, "--follow", SMIDR_TOKEN=made.json["token"])
    assert answer.code == 0, answer.text
    record = site.agent.record(answer.out.removeprefix("Build ID: ").strip())
    assert name in record.requested_by
    stopped = stranger(
        *("daemon", "stop", "--address", site.address("grpc")), SMIDR_TOKEN=made.json["token"]
    )
    assert stopped.code != 0
    assert site.agent.is_running()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", [{"name": "x", "git": "file:///etc", "branch": "main"}]),
        ("layers", [{"name": "x", "path": "/etc"}]),
        ("layers", [{"name": "x", "path": "../.."}]),
        ("directories", {"source": "/etc"}),
        ("directories", {"downloads": "/root"}),
    ],
)
def test_a_far_config_can_t_name_what_lies_on_the_agents_host(
    site: Site, far_project: Path, tmp_path: Path, key: str, value: object
) -> None:
    config = yaml.safe_load((far_project / "smidr.yaml").read_text())
    if isinstance(value, list):
        value = [*config["layers"], *value]
    path = tmp_path / "project" / "smidr.yaml"
    shutil.copytree(far_project / "meta-hello", path.parent / "meta-hello")
    shutil.copytree(far_project / "bitbake", path.parent / "bitbake")
    path.write_text(yaml.safe_dump({**config, key: value}))
    far = replace(site.smidr, directory=path.parent)
    before = len(site.agent.client.list(limit=1000))
    answer = far("client", "start", "--address", site.address("grpc"), "--customer", "evil")
    assert answer.code in {2, 3}, answer.text
    assert answer.err.startswith("Error: ")
    assert len(site.agent.client.list(limit=1000)) == before


def test_an_error_reads_the_same_with_the_agent_and_without(site: Site) -> None:
    name = site.write("bad.yaml", "  machine:", "  machin:")
    by_agent = site.smidr("build", "-c", name)
    here = site.smidr("build", "-c", name, "--no-agent")
    assert (by_agent.code, by_agent.text) == (here.code, here.text)
    assert by_agent.code == 2
    assert "machine" in by_agent.err
    unknown = site.smidr("build", "-t", "../x"), site.smidr("build", "-t", "../x", "--no-agent")
    assert unknown[0] == unknown[1]


def test_a_killed_client_costs_its_build_nothing(site: Site) -> None:
    client = site.start("patient", "orphan")
    kill_hard(client)
    site.let_go()
    record = site.agent.finish(site.newest("orphan"))
    assert record.state is BuildState.COMPLETED


def test_ctrl_c_is_a_clean_stop(site: Site) -> None:
    client = site.start("patient", "polite")
    client.send_signal(signal.SIGINT)
    site.wait_for_console("polite", "Keyboard Interrupt")
    site.let_go()
    said, _ = client.communicate(timeout=60)
    assert client.returncode == 130, said
    assert "Press Ctrl-C again to kill" in said
    assert site.agent.record(site.newest("polite")).state is BuildState.CANCELLED
    console = site.agent.console(site.newest("polite")).read_text()
    assert "task do_compile: Succeeded" in console


def test_ctrl_c_twice_kills(site: Site) -> None:
    client = site.start("stubborn", "rude")
    client.send_signal(signal.SIGINT)
    site.wait_for_console("rude", "Keyboard Interrupt")
    client.send_signal(signal.SIGINT)
    said, _ = client.communicate(timeout=30)
    assert client.returncode == 130, said
    assert site.agent.record(site.newest("rude")).state is BuildState.CANCELLED


def test_sigterm_leaves_a_build_to_the_next_agent(site: Site) -> None:
    client = site.start("patient", "handed-on")
    build_id = site.newest("handed-on")
    before = site.agent.pid
    assert site.agent.stop() == 0
    assert len(site.agent.containers(site.docker)) == 1
    assert not (site.smidr.home / "agent.sock").exists()
    site.agent.start()
    assert site.agent.pid != before
    site.let_go()
    said, _ = client.communicate(timeout=60)
    assert client.returncode == 0, said
    assert site.agent.record(build_id).state is BuildState.COMPLETED
    assert site.agent.console(build_id).read_text().count("patient waits") == 1


def test_sighup_reads_the_settings_again(site: Site) -> None:
    path = site.smidr.home / "agent.yaml"
    client = site.agent.client
    path.write_text("limits: {max_concurrent_builds: 7}\n")
    site.agent.signal(signal.SIGHUP)
    wait_until(lambda: client.status().max_running == 7, "the new settings")
    path.write_text("limits: {max_concurrent_builds: many}\n")
    site.agent.signal(signal.SIGHUP)
    wait_until(lambda: client.status().problems, "a word about the bad settings")
    assert client.status().max_running == 7
    shown = site.smidr("daemon", "status")
    assert "max_concurrent_builds" in shown.out
    path.unlink()
    site.agent.signal(signal.SIGHUP)
    wait_until(lambda: not client.status().problems, "the good settings")


def test_a_second_agent_of_a_home_is_refused(site: Site) -> None:
    answer = site.smidr("daemon")
    assert answer.code != 0
    assert f"an agent runs already, pid {site.agent.pid}" in answer.err
    assert site.agent.client.answers()


def test_a_drained_agent_finishes_what_runs_and_takes_nothing_new(site: Site) -> None:
    client = site.start("patient", "drained")
    waiting = site.agent.submit("--customer", "drained", "-t", "motd")
    assert site.smidr("daemon", "drain").code == 0
    refused = site.smidr("client", "start", "--customer", "late")
    assert refused.code != 0
    assert "drains" in refused.err
    site.let_go()
    assert client.wait(60) == 0
    assert site.agent.wait_for_end() == 0
    client.communicate()
    site.agent.start()
    assert site.agent.finish(waiting).state is BuildState.COMPLETED


def test_a_stop_can_take_all_builds_along(site: Site) -> None:
    client = site.start("patient", "stopped")
    waiting = site.agent.submit("--customer", "stopped", "-t", "motd")
    running = site.newest("stopped") if site.newest("stopped") != waiting else ""
    running = running or site.agent.client.list(limit=2, customer="stopped")[1].build_id
    site.let_go()
    assert site.smidr("daemon", "stop", "--cancel-builds").code == 0
    assert site.agent.wait_for_end() == 0
    client.communicate(timeout=60)
    site.agent.start()
    assert site.agent.record(waiting).state is BuildState.CANCELLED
    assert site.agent.record(running).state in {BuildState.CANCELLED, BuildState.COMPLETED}


def test_without_an_agent_the_same_command_builds_by_itself(site: Site) -> None:
    site.agent.stop()
    answer = site.smidr("build", "--customer", "alone", "-t", "motd")
    assert answer.code == 0, answer.text
    assert "is the agent's" not in answer.err
    missing = site.smidr("client", "list")
    assert missing.code == 4
    assert "smidr daemon" in missing.err
    site.agent.start()
    assert not site.agent.record(site.newest("alone")).is_resumable
