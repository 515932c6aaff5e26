"""Builds that are cancelled, killed or starved: what is recorded, and that nothing is left."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from smidr_ci.locks import is_locked
from tests.fakes.fault_recipes import add_fault_recipes, console_of, wait_for_console
from tests.fakes.git_server import serve
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr, kill_hard, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@dataclass(frozen=True)
class Site:
    """A project whose recipes wait, a home, and the engine behind it."""

    project: HelloProject
    smidr: Smidr
    client: APIClient

    def start(self, target: str, customer: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a build of one target, alone for its customer."""
        return self.smidr.start("build", "-t", target, "--customer", customer, *arguments)

    def config(self, name: str, old: str, new: str) -> str:
        """Write a config with one change; its name."""
        text = self.project.config.read_text()
        assert old in text
        (self.project.work / name).write_text(text.replace(old, new, 1))
        return name

    def record(self, customer: str) -> dict[str, Any]:
        """The customer's newest build."""
        record: dict[str, Any] = self.smidr("status", "--customer", customer, "--json").json
        return record

    def containers(self, customer: str) -> list[Any]:
        """The customer's containers, of this home only."""
        found = self.client.containers(
            all=True, filters={"label": f"io.smidr.owner={self.smidr.home.resolve()}"}
        )
        return [one for one in found if f"/smidr-build-{customer}-" in one["Names"][0]]

    def workspaces(self, customer: str) -> list[Path]:
        return list(self.smidr.home.glob(f"workspaces/{customer}-*/[0-9]*"))

    def nothing_is_left_of(self, customer: str) -> bool:
        assert self.containers(customer) == []
        assert self.workspaces(customer) == []
        locks = self.smidr.home.rglob("*.lock")
        assert [path for path in locks if path.is_file() and is_locked(path)] == []
        return True


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
    docker_client: APIClient,
) -> Site:
    root = tmp_path_factory.mktemp("stops")
    project = make_hello_project(root)
    add_fault_recipes(project)
    return Site(project, Smidr(root / "home", project.work), docker_client)


def test_ctrl_c_lets_running_tasks_end_and_leaves_nothing(site: Site) -> None:
    build = site.start("patient", "polite")
    wait_for_console(site.smidr, "polite", "patient waits")
    build.send_signal(signal.SIGINT)
    wait_for_console(site.smidr, "polite", "Keyboard Interrupt")
    (site.project.work / "go").touch()
    said, _ = build.communicate(timeout=60)
    (site.project.work / "go").unlink()
    assert build.returncode == 130, said
    assert "Press Ctrl-C again to kill" in said
    record = site.record("polite")
    assert (record["state"], record["failure_message"]) == ("cancelled", "Cancelled by Ctrl-C")
    assert record["findings"] == []
    assert "task do_compile: Succeeded" in console_of(site.smidr, "polite")
    assert site.nothing_is_left_of("polite")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_kills_a_task_that_ignores_the_first(
    site: Site, number: signal.Signals
) -> None:
    customer = number.name.lower()
    build = site.start("stubborn", customer)
    wait_for_console(site.smidr, customer, "stubborn ignores signals")
    build.send_signal(number)
    wait_for_console(site.smidr, customer, "Keyboard Interrupt")
    assert build.poll() is None
    build.send_signal(number)
    said, _ = build.communicate(timeout=20)
    assert build.returncode == 130, said
    assert site.record(customer)["state"] == "cancelled"
    assert site.nothing_is_left_of(customer)


def test_kill_9_leaves_an_interrupted_build_that_locks_nothing(site: Site, tmp_path: Path) -> None:
    living = site.start("patient", "living")
    wait_for_console(site.smidr, "living", "patient waits")
    build = site.start("stubborn", "dead")
    wait_for_console(site.smidr, "dead", "stubborn ignores signals")
    kill_hard(build)

    shown = site.smidr("list", "--customer", "dead").out
    assert "failed (interrupted)" in shown
    assert site.record("living")["state"] == "building"
    assert site.smidr("build", "-t", "motd", "--customer", "dead").code == 0

    assert "nothing is left" in Smidr(tmp_path / "other", tmp_path)("doctor", "--clean").out
    assert len(site.containers("dead")) == 1
    found = site.smidr("doctor").out
    assert f"running container of build {build_id(site, 'dead')}" in found
    assert f"{site.smidr.home}/workspaces/dead-hello/1" in found
    assert "smidr doctor --clean" in found
    assert "living" not in found
    cleaned = site.smidr("doctor", "--clean").out
    assert "nothing is left of crashed builds" in cleaned
    assert site.containers("dead") == []
    assert site.workspaces("dead") == []

    (site.project.work / "go").touch()
    said, _ = living.communicate(timeout=60)
    (site.project.work / "go").unlink()
    assert living.returncode == 0, said


def build_id(site: Site, customer: str) -> str:
    """Of the customer's interrupted build."""
    builds = site.smidr("list", "--customer", customer, "--state", "failed", "--json").json
    return str(builds["builds"][0]["build_id"])


def test_kill_9_while_layers_are_fetched_blocks_no_later_build(site: Site) -> None:
    with serve(site.project.work) as server:
        server.hold_packs.clear()
        config = site.config(
            "served.yaml", site.project.layer_repository.as_uri(), server.url("meta-hello.git")
        )
        build = site.start("motd", "fetching", "-c", config)
        wait_until(server.pack_started.is_set, "the fetch of the layer")
        kill_hard(build)
        assert "failed (interrupted)" in site.smidr("list", "--customer", "fetching").out
        server.hold_packs.set()
        again = site.smidr("build", "-t", "motd", "--customer", "fetching", "-c", config)
    assert again.code == 0, again.text


def test_a_cancel_breaks_off_a_layer_fetch_that_hangs(site: Site) -> None:
    with serve(site.project.work) as server:
        server.hold_packs.clear()
        config = site.config(
            "hanging.yaml", site.project.layer_repository.as_uri(), server.url("meta-hello.git")
        )
        build = site.start("motd", "hanging", "-c", config)
        wait_until(server.pack_started.is_set, "the fetch of the layer")
        build.send_signal(signal.SIGINT)
        said, _ = build.communicate(timeout=10)
    assert build.returncode == 130, said
    record = site.record("hanging")
    assert (record["state"], record["stages"][-1]["name"]) == ("cancelled", "preparing")
    assert site.nothing_is_left_of("hanging")


def test_a_cancel_breaks_off_the_making_of_a_builder_image(site: Site) -> None:
    config = site.config("big.yaml", "    - cpio\n", "    - cpio\n    - clang\n    - texlive\n")
    build = site.start("motd", "imaging", "-c", config)
    assert build.stdout is not None
    said = ""
    while "Get:" not in said:
        line = build.stdout.readline()
        assert line, said
        said += line
    build.send_signal(signal.SIGTERM)
    build.communicate(timeout=30)
    assert build.returncode == 130
    assert site.record("imaging")["state"] == "cancelled"
    made = site.client.containers(all=True, filters={"ancestor": "smidr-test-base:bookworm"})
    assert not [one for one in made if "clang" in str(one["Labels"])]
    assert site.nothing_is_left_of("imaging")


def test_a_container_that_somebody_kills_is_an_interrupted_build(site: Site) -> None:
    build = site.start("stubborn", "robbed")
    wait_for_console(site.smidr, "robbed", "stubborn ignores signals")
    (container,) = site.containers("robbed")
    site.client.kill(container["Id"])
    said, _ = build.communicate(timeout=30)
    assert build.returncode == 1
    assert "stopped from outside, with exit code 137" in said
    record = site.record("robbed")
    assert (record["state"], record["failure_kind"]) == ("failed", "interrupted")
    assert site.containers("robbed") == []


def test_a_recipe_that_eats_all_memory_is_named_with_the_key_to_raise(site: Site) -> None:
    config = site.config("small.yaml", "container:\n", "container:\n  memory: 256m\n")
    answer = site.smidr("build", "-c", config, "-t", "hungry", "--customer", "hungry")
    assert answer.code == 1, answer.text
    record = site.record("hungry")
    assert record["failure_kind"] == "out-of-memory"
    assert "hungry:do_compile" in record["failure_message"]
    assert "container.memory" in answer.out
    assert record["findings"][0]["recipe"] == "hungry"
