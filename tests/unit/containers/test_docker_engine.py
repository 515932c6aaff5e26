"""The runtime against an engine that refuses, restarts and forgets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle, User
from smidr_ci.engine import Engine, EngineUnreachableError
from smidr_ci.errors import EngineError
from tests.fakes.clock import FakeClock
from tests.fakes.docker_api import (
    VERSION,
    Answer,
    FakeDockerApi,
    Request,
    collect_lost_sockets,
)

# The SDK leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

HANDLE = Handle("acme-1", "c1")
SPEC = ContainerSpec("acme-1", "image", ("true",), User(1000, 1000))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeDockerApi]:
    served = FakeDockerApi(tmp_path / "engine.sock")
    served.start()
    yield served
    served.stop()
    collect_lost_sockets()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def runtime(api: FakeDockerApi, clock: FakeClock) -> Iterator[DockerRuntime]:
    with closing(Engine(api.url)) as engine:
        yield DockerRuntime(engine=engine, clock=clock, reconnect_s=60)


def state(**fields: Any) -> Answer:
    return Answer(json={"State": {"Running": False, "Status": "exited", **fields}})


RUNNING = state(Running=True, Status="running")


def test_engine_that_is_away_is_waited_for_then_named(
    api: FakeDockerApi, runtime: DockerRuntime, clock: FakeClock
) -> None:
    api.on("GET", "/containers/c1/json", RUNNING)
    assert runtime.wait(HANDLE, 0) is None
    api.stop()
    assert runtime.wait(HANDLE, 30) is None
    assert clock.monotonic() == pytest.approx(30, abs=1)
    with pytest.raises(EngineUnreachableError, match="not answered for 6"):
        runtime.wait(HANDLE, 60)


def test_container_that_outlives_the_engines_restart_is_waited_for(
    api: FakeDockerApi, runtime: DockerRuntime, clock: FakeClock
) -> None:
    api.on("GET", "/containers/c1/json", RUNNING)
    assert runtime.wait(HANDLE, 0) is None
    api.stop()
    assert runtime.wait(HANDLE, 59) is None
    api.start()
    assert runtime.wait(HANDLE, 0) is None
    api.stop()
    clock.advance(1000)
    assert runtime.wait(HANDLE, 50) is None, "an outage that ended must not count"
    api.start()
    api.on("GET", "/containers/c1/json", state(ExitCode=3))
    assert runtime.wait(HANDLE, 5) == Exit(3, oom_killed=False)


def test_end_is_seen_as_soon_as_the_engine_says_so(
    api: FakeDockerApi, runtime: DockerRuntime
) -> None:
    ended = threading.Event()

    def wait(_: Request) -> Answer:
        ended.set()
        return Answer(json={"StatusCode": 0})

    api.on("POST", "/containers/c1/wait", wait)
    api.on(
        "GET",
        "/containers/c1/json",
        lambda _: state(ExitCode=137, OOMKilled=True) if ended.is_set() else RUNNING,
    )
    assert runtime.wait(HANDLE, 600) == Exit(137, oom_killed=True)


def test_paused_container_has_not_ended(api: FakeDockerApi, runtime: DockerRuntime) -> None:
    api.on("GET", "/containers/c1/json", state(Running=True, Paused=True, Status="paused"))
    assert runtime.wait(HANDLE, 0) is None


def test_gone_container_is_an_error_for_wait_only(
    api: FakeDockerApi, runtime: DockerRuntime
) -> None:
    gone = Answer(404, {"message": "No such container: c1"})
    api.on("GET", "/containers/c1/json", gone)
    api.on("POST", "/containers/c1/kill", gone)
    api.on("DELETE", "/containers/c1", gone)
    with pytest.raises(EngineError, match="of acme-1 is gone"):
        runtime.wait(HANDLE, 1)
    runtime.interrupt(HANDLE)
    runtime.kill(HANDLE)
    runtime.remove(HANDLE)
    assert [one.query["signal"] for one in api.asked("POST", ".*/kill")] == ["SIGTERM", "SIGKILL"]


def test_removal_that_somebody_else_began_is_waited_for(
    api: FakeDockerApi, runtime: DockerRuntime, clock: FakeClock
) -> None:
    answers = iter([Answer(409, {"message": "removal already in progress"})] * 3)
    gone = Answer(404, {"message": "No such container"})
    api.on("DELETE", "/containers/c1", lambda _: next(answers, gone))
    runtime.remove(HANDLE)
    assert len(api.asked("DELETE", "/containers/c1")) == 4
    assert len(clock.slept) == 3


def test_other_refusals_are_not_swallowed(api: FakeDockerApi, runtime: DockerRuntime) -> None:
    api.on("POST", "/containers/c1/kill", Answer(500, {"message": "runc is broken"}))
    with pytest.raises(EngineError, match="runc is broken"):
        runtime.kill(HANDLE)


def test_container_without_accounts_written_is_removed(
    api: FakeDockerApi, runtime: DockerRuntime
) -> None:
    api.on("POST", "/containers/create", Answer(201, {"Id": "c1", "Warnings": []}))
    api.on("PUT", "/containers/c1/archive", Answer(500, {"message": "no space left on device"}))
    api.on("DELETE", "/containers/c1", Answer(204))
    with pytest.raises(EngineError, match="no space left on device"):
        runtime.start(SPEC)
    assert len(api.asked("DELETE", "/containers/c1")) == 1
    assert api.asked("POST", "/containers/c1/start") == []


def test_proxies_of_the_users_docker_config_do_not_reach_the_build(
    api: FakeDockerApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "docker"
    config.mkdir()
    proxy = '{"proxies": {"default": {"httpProxy": "http://user:secret@proxy"}}}'
    (config / "config.json").write_text(proxy)
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    api.on("POST", "/containers/create", Answer(201, {"Id": "c1"}))
    api.on("PUT", "/containers/c1/archive", Answer(200))
    api.on("POST", "/containers/c1/start", Answer(204))
    with closing(Engine(api.url)) as engine:
        DockerRuntime(engine=engine).start(SPEC)
    assert b"secret" not in api.asked("POST", "/containers/create")[0].body


def test_warning_of_the_engine_is_logged(
    api: FakeDockerApi, runtime: DockerRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    warning = "Your kernel does not support memory limit capabilities."
    api.on("POST", "/containers/create", Answer(201, {"Id": "c1", "Warnings": [warning]}))
    api.on("PUT", "/containers/c1/archive", Answer(200))
    api.on("POST", "/containers/c1/start", Answer(204))
    runtime.start(SPEC)
    assert warning in caplog.text


def test_list_tells_builds_by_their_labels(api: FakeDockerApi, runtime: DockerRuntime) -> None:
    labels = {"io.smidr.build-id": "acme-1", "io.smidr.role": "shell"}
    entry = {"Id": "c9", "Labels": labels, "State": "exited"}
    api.on("GET", "/containers/json", Answer(json=[entry]))
    assert runtime.list_builds() == [Handle("acme-1", "c9", is_running=False, role="shell")]


def test_podmans_way_to_say_that_nothing_runs_is_understood(
    api: FakeDockerApi, runtime: DockerRuntime
) -> None:
    words = "can only kill running containers. c1 is in state exited: container state improper"
    api.on("POST", "/containers/c1/kill", Answer(500, {"message": words}))
    runtime.interrupt(HANDLE)
    runtime.kill(HANDLE)


def test_podman_is_told_to_kill_before_it_removes(
    api: FakeDockerApi, runtime: DockerRuntime
) -> None:
    components = [{"Name": "Podman Engine"}]
    api.on("GET", "/version", Answer(json={**VERSION, "Components": components}))
    api.on("POST", "/containers/c1/kill", Answer(204))
    api.on("DELETE", "/containers/c1", Answer(204))
    runtime.remove(HANDLE)
    assert api.requests[-2].query == {"signal": "SIGKILL"}
    assert api.requests[-1].query["force"] == "True"


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(409, {"message": "Conflict. The container name is in use"}),
        Answer(500, {"message": "creating container storage: that name is already in use"}),
    ],
)
def test_left_over_container_is_named_with_the_command_that_removes_it(
    api: FakeDockerApi, runtime: DockerRuntime, refusal: Answer
) -> None:
    api.on("POST", "/containers/create", refusal)
    with pytest.raises(EngineError) as caught:
        runtime.start(SPEC)
    assert "docker rm -f smidr-build-acme-1" in caught.value.hint
