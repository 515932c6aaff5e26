"""`smidr shell`: the container, environment and mounts of a build, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import APIClient

from smidr_ci.containers.runtime import User
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smidr-home")


@pytest.fixture
def smidr(shared_home: Path, hello_project: HelloProject, docker_client: APIClient) -> Smidr:
    assert docker_client.ping()
    return Smidr(shared_home, hello_project.work)


def test_a_command_runs_where_bitbake_would_and_its_exit_code_comes_back(
    smidr: Smidr, builder: User
) -> None:
    answer = smidr("shell", "--", "sh", "-c", "pwd; id -u; command -v bitbake; exit 3")
    assert answer.code == 3, answer.text
    assert answer.out.split() == [
        "/smidr/build",
        str(builder.uid),
        "/smidr/layers/bitbake/bin/bitbake",
    ]
    assert not list((smidr.home / "workspaces").glob("*/[0-9]*"))


def test_bitbake_answers_by_hand(smidr: Smidr) -> None:
    answer = smidr("shell", "--", "bitbake", "-e", "hello-image")
    assert answer.code == 0, answer.text
    assert '\nMACHINE="hello-x86"\n' in answer.out
    assert '\nDL_DIR="/smidr/downloads"\n' in answer.out


def test_layers_are_read_only_and_a_missing_program_is_named(smidr: Smidr) -> None:
    answer = smidr("shell", "--", "grep", "-w", "/smidr/layers/meta-hello", "/proc/mounts")
    assert answer.out.split()[3].split(",")[0] == "ro"
    missing = smidr("shell", "--", "nosuchprogram")
    assert missing.code == 127
    assert "nosuchprogram" in missing.text


def test_the_directory_of_a_failed_build_can_be_entered_again(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    hello_project.edit(
        "meta-hello/recipes/motd/motd_1.0.bb", "do_install() {\n", "do_install() {\n    exit 7\n"
    )
    assert smidr("build", "-t", "motd").code == 1
    failed = smidr.newest()
    # What the project becomes later does not matter: the build's own commits count.
    hello_project.edit("meta-hello/recipes/motd/motd_1.0.bb", "exit 7", "exit 0")
    log = "cat tmp/work/*/motd-*/temp/run.do_install"
    answer = smidr("shell", "--build", failed["build_id"], "--", "sh", "-c", log)
    assert answer.code == 0, answer.text
    assert "exit 7" in answer.out
    again = smidr("shell", "--build", failed["build_id"], "--", "bitbake", "motd")
    assert again.code == 1, again.text
    assert Path(failed["workspace"]).is_dir()


def test_a_directory_that_is_gone_is_said_to_be(smidr: Smidr) -> None:
    done = smidr.build()
    answer = smidr("shell", "--build", done["build_id"], "--", "true")
    assert answer.code == 2
    assert "--keep" in answer.text
