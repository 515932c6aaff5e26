"""The connection to an engine: found, described, and explained when it fails."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from smidr_ci.engine import (
    Engine,
    EngineFacts,
    EngineRefusalError,
    EngineUnreachableError,
    find_url,
)
from smidr_ci.errors import EngineError
from tests.fakes.docker_api import INFO, VERSION, Answer, FakeDockerApi, collect_lost_sockets

# The SDK leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeDockerApi]:
    served = FakeDockerApi(tmp_path / "engine.sock")
    served.start()
    yield served
    served.stop()
    collect_lost_sockets()


@pytest.fixture
def engine(api: FakeDockerApi) -> Iterator[Engine]:
    with closing(Engine(api.url)) as connected:
        yield connected


def test_docker_host_names_the_engine() -> None:
    assert find_url({"DOCKER_HOST": "tcp://build:2375"}) == "tcp://build:2375"


def test_without_docker_host_a_socket_of_the_user_is_found(tmp_path: Path) -> None:
    if Path("/var/run/docker.sock").exists():
        assert find_url({"XDG_RUNTIME_DIR": str(tmp_path)}) == "unix:///var/run/docker.sock"
        return
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    found = find_url({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found == f"unix://{tmp_path}/podman/podman.sock"


def test_missing_socket_says_that_the_engine_does_not_run(socket_dir: Path) -> None:
    with pytest.raises(EngineUnreachableError, match="not running") as caught:
        Engine(f"unix://{socket_dir}/none.sock").facts  # noqa: B018 - the use connects
    assert "systemctl start docker" in caught.value.hint
    assert caught.value.kind.exit_code == 4


def test_socket_that_nobody_serves_says_refused(socket_dir: Path) -> None:
    os.mknod(socket_dir / "left.sock", stat.S_IFSOCK | 0o600)
    with pytest.raises(EngineUnreachableError, match="connection refused"):
        Engine(f"unix://{socket_dir}/left.sock").facts  # noqa: B018 - the use connects


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use any socket")
def test_closed_socket_names_the_group(api: FakeDockerApi) -> None:
    api.socket.chmod(0)
    with pytest.raises(EngineUnreachableError, match="permission denied") as caught:
        Engine(api.url).facts  # noqa: B018 - the use connects
    assert "usermod -aG docker" in caught.value.hint


def test_bad_url_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="gopher"):
        Engine("gopher://x").facts  # noqa: B018 - the use connects


def test_facts_come_from_version_and_info(engine: Engine) -> None:
    facts = engine.facts
    assert (facts.version, facts.api_version, facts.cpus) == ("20.10.24", "1.41", 2)
    assert (facts.is_podman, facts.is_rootless, facts.has_selinux) == (False, False, False)


def test_podman_rootless_selinux_and_remapping_are_recognised() -> None:
    version = {**VERSION, "Components": [{"Name": "Podman Engine"}]}
    options = ["name=rootless", "name=selinux", "name=userns", "name=seccomp,profile=default"]
    facts = EngineFacts.from_answers(version, {**INFO, "SecurityOptions": options})
    assert facts.is_podman
    assert facts.is_rootless
    assert facts.has_selinux
    assert facts.has_user_remap


def test_refusal_carries_status_and_the_engines_words(api: FakeDockerApi, engine: Engine) -> None:
    api.on("GET", "/containers/x/json", Answer(409, {"message": "is being removed"}))
    with (
        pytest.raises(EngineRefusalError, match="can't look: is being removed") as caught,
        engine.calling("look"),
    ):
        engine.api.inspect_container("x")
    assert (caught.value.status, caught.value.answer) == (409, "is being removed")


def test_engine_that_stops_between_calls_is_unreachable(api: FakeDockerApi, engine: Engine) -> None:
    assert engine.facts.cpus == 2
    api.stop()
    with pytest.raises(EngineUnreachableError, match="does not answer"), engine.calling("look"):
        engine.api.containers()
    api.start()
    api.on("GET", "/containers/json", Answer(json=[]))
    with engine.calling("look"):
        assert engine.api.containers() == []
