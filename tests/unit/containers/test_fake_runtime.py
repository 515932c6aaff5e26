"""The fake keeps the contract that tests of other rooms rely on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.containers.runtime import ContainerRuntime, ContainerSpec, Exit, Mount, User
from smidr_ci.errors import EngineError
from tests.fakes.runtime import FakeContainer, FakeEngine, FakeRuntime


def spec(path: Path, *command: str) -> ContainerSpec:
    mount = Mount(path, PurePosixPath("/smidr/build"), writable=True)
    return ContainerSpec("acme-1", "image", command, User(1000, 1000), mounts=(mount,))


def ended(runtime: ContainerRuntime, spec: ContainerSpec) -> Exit | None:
    return runtime.wait(runtime.start(spec), 30)


def test_subprocess_sees_host_paths(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo $A > /smidr/build/out; exit 3")
    assert ended(FakeRuntime(), spec(tmp_path, *command)) == Exit(3, oom_killed=False)
    assert (tmp_path / "out").exists()


def test_subprocess_is_interrupted_and_killed(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    handle = runtime.start(spec(tmp_path, "sleep", "60"))
    assert runtime.wait(handle, 0.01) is None
    runtime.interrupt(handle)
    assert runtime.wait(handle, 30) == Exit(143, oom_killed=False)
    runtime.remove(handle)
    handle = runtime.start(spec(tmp_path, "sleep", "60"))
    runtime.kill(handle)
    assert runtime.wait(handle, 30) == Exit(137, oom_killed=False)


def test_callable_waits_for_its_signal(tmp_path: Path) -> None:
    def program(container: FakeContainer) -> int:
        container.stopped.wait(30)
        container.oom_killed = True
        return 9

    runtime = FakeRuntime(program)
    handle = runtime.start(spec(tmp_path, "x"))
    runtime.interrupt(handle)
    assert runtime.wait(handle, 30) == Exit(9, oom_killed=True)


def test_another_runtime_on_the_same_engine_finds_it_until_it_is_removed(tmp_path: Path) -> None:
    engine = FakeEngine()
    first = FakeRuntime(lambda container: int(not container.stopped.wait(30)), engine)
    handle = first.start(spec(tmp_path, "x"))
    second = FakeRuntime(engine=engine)
    assert second.find("acme-1") == handle
    with pytest.raises(EngineError, match="left over"):
        second.start(spec(tmp_path, "x"))
    second.remove(handle)
    assert first.find("acme-1") is None
    with pytest.raises(EngineError, match="is gone"):
        first.wait(handle, 1)


def test_missing_mount_and_lost_engine_are_errors(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    with pytest.raises(EngineError, match="missing"):
        runtime.start(spec(tmp_path / "gone", "true"))
    runtime.engine.is_reachable = False
    with pytest.raises(EngineError, match="does not answer"):
        runtime.list_builds()
