"""Containers on a real engine: who they are, what they can't do, how they end."""

from __future__ import annotations

import io
import os
import select
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle, Mount, User
from smidr_ci.containers.terminal import Streams
from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = pytest.mark.docker

BUILD = PurePosixPath("/smidr/build")


@pytest.fixture
def work(builder_dir: Callable[[str], Path]) -> Path:
    """The host's side of `/smidr/build`."""
    return builder_dir("work")


@pytest.fixture
def spec(base_image: str, build_id: str, builder: User, work: Path) -> ContainerSpec:
    """A container with one writable mount, to be given a command."""
    return ContainerSpec(
        build_id, base_image, ("true",), builder, mounts=(Mount(work, BUILD, writable=True),)
    )


def shell(spec: ContainerSpec, script: str) -> ContainerSpec:
    return replace(spec, command=("sh", "-c", script))


def run(runtime: DockerRuntime, spec: ContainerSpec, timeout_s: float = 60) -> Exit:
    ended = runtime.wait(runtime.start(spec), timeout_s)
    assert ended is not None
    return ended


def test_exit_code_is_the_main_processs(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    assert run(runtime, shell(spec, "exit 7")) == Exit(7, oom_killed=False)


def test_files_belong_to_the_host_user_who_has_an_entry_and_a_home(
    runtime: DockerRuntime, spec: ContainerSpec, work: Path, builder: User
) -> None:
    script = "id -un > who; id -gn >> who; echo $HOME >> who; touch $HOME/x && echo ok >> who"
    assert run(runtime, shell(spec, script)).code == 0
    info = (work / "who").stat()
    assert (info.st_uid, info.st_gid) == (builder.uid, builder.gid)
    assert (work / "who").read_text().split() == ["builder", "builder", "/smidr/home", "ok"]


def test_container_has_no_capabilities_and_gains_no_privileges(
    runtime: DockerRuntime, spec: ContainerSpec, work: Path
) -> None:
    assert run(runtime, shell(spec, "cat /proc/self/status > status")).code == 0
    status = dict(
        line.split(":", 1) for line in (work / "status").read_text().splitlines() if ":" in line
    )
    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_read_only_mount_can_not_be_written(
    runtime: DockerRuntime, spec: ContainerSpec, builder_dir: Callable[[str], Path]
) -> None:
    layer = builder_dir("layer")
    mounts = (*spec.mounts, Mount(layer, PurePosixPath("/smidr/layers/x")))
    assert run(runtime, replace(shell(spec, "touch /smidr/layers/x/f"), mounts=mounts)).code != 0
    assert list(layer.iterdir()) == []


def test_memory_limit_kills_and_is_named(
    runtime: DockerRuntime, spec: ContainerSpec, engine: Engine
) -> None:
    if not engine.facts.limits_memory:
        pytest.skip("the kernel has no memory cgroup")
    # `tail` keeps the longest line in memory, and there is only one.
    hungry = shell(spec, "exec tail /dev/zero")
    ended = run(runtime, replace(hungry, memory_bytes=64 * 1024**2))
    assert ended == Exit(137, oom_killed=True)


def test_limits_reach_the_engine(
    runtime: DockerRuntime, spec: ContainerSpec, docker_client: APIClient, engine: Engine
) -> None:
    limited = replace(spec, memory_bytes=256 * 1024**2, cpus=4096.0, pids=99, shm_bytes=2 * 1024**2)
    handle = runtime.start(limited)
    found = docker_client.inspect_container(handle.container_id)["HostConfig"]
    assert (found["Memory"], found["MemorySwap"]) == (256 * 1024**2, 256 * 1024**2)
    assert (found["PidsLimit"], found["ShmSize"]) == (99, 2 * 1024**2)
    assert found["NanoCpus"] == engine.facts.cpus * 10**9
    assert found["Privileged"] is False


def test_interrupt_reaches_the_main_process(
    runtime: DockerRuntime, spec: ContainerSpec, work: Path
) -> None:
    script = "trap 'echo term > caught; exit 3' TERM; touch ready; while :; do sleep 0.05; done"
    handle = runtime.start(shell(spec, script))
    wait_for((work / "ready").exists)
    assert runtime.wait(handle, 0.01) is None
    runtime.interrupt(handle)
    assert runtime.wait(handle, 20) == Exit(3, oom_killed=False)
    assert (work / "caught").read_text() == "term\n"
    runtime.interrupt(handle)
    runtime.kill(handle)


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("the condition never came true")


def test_kill_ends_what_ignores_the_interrupt(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    handle = runtime.start(shell(spec, "trap '' TERM; while :; do sleep 1; done"))
    runtime.kill(handle)
    assert runtime.wait(handle, 20) == Exit(137, oom_killed=False)


def test_container_is_found_by_another_runtime_and_gone_after_remove(
    runtime: DockerRuntime, spec: ContainerSpec, docker_client: APIClient
) -> None:
    handle = runtime.start(shell(spec, "sleep 60"))
    name = docker_client.inspect_container(handle.container_id)["Name"]
    assert name == f"/smidr-build-{spec.build_id}"
    reborn = DockerRuntime()
    assert reborn.find(spec.build_id) == handle
    assert handle in reborn.list_builds()
    reborn.kill(handle)
    assert reborn.wait(handle, 20) == Exit(137, oom_killed=False)
    assert reborn.find(spec.build_id) == replace(handle, is_running=False)
    reborn.remove(handle)
    assert runtime.find(spec.build_id) is None
    runtime.remove(handle)
    runtime.kill(handle)
    with pytest.raises(EngineError, match="is gone"):
        runtime.wait(handle, 1)


def test_second_container_of_a_build_is_refused_by_name(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    first = runtime.start(shell(spec, "sleep 60"))
    with pytest.raises(EngineError) as caught:
        runtime.start(spec)
    assert f"docker rm -f smidr-build-{spec.build_id}" in caught.value.hint
    assert runtime.find(spec.build_id) == first


def test_failed_start_leaves_nothing(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    with pytest.raises(EngineError, match="smidr-no-such-network"):
        runtime.start(replace(spec, network="smidr-no-such-network"))
    assert runtime.find(spec.build_id) is None


def test_program_that_the_image_lacks_is_in_the_output(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    handle = runtime.start(replace(spec, command=("/no/such/program",)))
    assert runtime.wait(handle, 20) == Exit(127, oom_killed=False)
    assert "/no/such/program" in runtime.output_tail(handle)


def test_container_that_never_started_is_no_success(
    runtime: DockerRuntime, spec: ContainerSpec, docker_client: APIClient
) -> None:
    labels = {"io.smidr.build-id": spec.build_id, "io.smidr.role": "build"}
    made = docker_client.create_container(spec.image, ["true"], labels=labels)
    found = runtime.find(spec.build_id)
    assert found == Handle(spec.build_id, made["Id"], is_running=False, has_started=False)
    with pytest.raises(EngineError, match="never started"):
        runtime.wait(found, 1)


def test_missing_image_is_named(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    with pytest.raises(EngineError, match="smidr-no-such-image"):
        runtime.start(replace(spec, image="smidr-no-such-image:1"))


@pytest.fixture
def odd_image(docker_client: APIClient, base_image: str, build_id: str) -> Iterator[str]:
    """An image with an entrypoint, a user, a health check, a volume, and another uid's name."""
    container = docker_client.create_container(base_image, ["true"])["Id"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = b"root:x:0:0:root:/root:/bin/sh\nbuilder:x:4242:4242::/nowhere:/usr/sbin/nologin\n"
        member = tarfile.TarInfo("usr/share/accounts")
        member.size = len(entry)
        tar.addfile(member, io.BytesIO(entry))
        link = tarfile.TarInfo("etc/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/usr/share/accounts"
        tar.addfile(link)
    docker_client.put_archive(container, "/", out.getvalue())
    changes = [
        'ENTRYPOINT ["/bin/false"]',
        'CMD ["/bin/false"]',
        "USER 4242",
        "VOLUME /smidr-volume",
    ]
    docker_client.commit(container, "smidr-test-odd", build_id, changes=changes)
    docker_client.remove_container(container)
    yield f"smidr-test-odd:{build_id}"
    docker_client.remove_image(f"smidr-test-odd:{build_id}")


def test_entrypoint_user_and_accounts_of_the_image_do_not_count(
    runtime: DockerRuntime, spec: ContainerSpec, odd_image: str, work: Path, builder: User
) -> None:
    script = "id -u > who; getent passwd $(id -u) >> who; getent passwd 4242 >> who"
    handle = runtime.start(replace(shell(spec, script), image=odd_image))
    assert runtime.wait(handle, 30) == Exit(0, oom_killed=False)
    mine, entry, other = (work / "who").read_text().splitlines()
    assert int(mine) == builder.uid
    assert entry.split(":")[0] == f"builder{builder.uid}"
    assert entry.split(":")[5] == "/smidr/home"
    assert other.startswith("builder:x:4242:")
    runtime.remove(handle)


def test_own_entrypoint_is_given_the_command(
    runtime: DockerRuntime, spec: ContainerSpec, work: Path
) -> None:
    wrapped = replace(spec, entrypoint=("sh", "-c", 'echo "$@" > args', "sh"), command=("a", "b"))
    assert run(runtime, wrapped).code == 0
    assert (work / "args").read_text() == "a b\n"


def test_environment_of_the_user_is_not_passed(
    runtime: DockerRuntime, spec: ContainerSpec, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMIDR_TEST_SECRET", "hunter2")
    assert run(runtime, replace(shell(spec, "env > env"), environment={"A": "b=c d"})).code == 0
    names = dict(line.split("=", 1) for line in (work / "env").read_text().splitlines())
    assert names["A"] == "b=c d"
    assert "SMIDR_TEST_SECRET" not in names


def test_no_network_means_none(runtime: DockerRuntime, spec: ContainerSpec, work: Path) -> None:
    assert run(runtime, replace(shell(spec, "ls /sys/class/net > net"), network="none")).code == 0
    assert (work / "net").read_text().split() == ["lo"]


def test_output_tail_shows_what_the_main_process_wrote(
    runtime: DockerRuntime, spec: ContainerSpec
) -> None:
    handle = runtime.start(shell(spec, "echo one; echo two >&2"))
    runtime.wait(handle, 20)
    assert set(runtime.output_tail(handle).split()) == {"one", "two"}


def test_pipes_carry_more_than_any_buffer_both_ways(
    runtime: DockerRuntime, spec: ContainerSpec, tmp_path: Path
) -> None:
    sent = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(sent)
    with (
        (tmp_path / "in").open("rb") as given,
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
    ):
        streams = Streams(given.fileno(), out.fileno(), err.fileno())
        command = shell(replace(spec, role="shell"), "cat; echo problem >&2; exit 5")
        code = runtime.run_interactive(command, streams)
    assert code == 5
    assert (tmp_path / "out").read_bytes() == sent
    assert (tmp_path / "err").read_text() == "problem\n"
    assert runtime.list_builds() == [] or all(
        handle.build_id != spec.build_id for handle in runtime.list_builds()
    )


def test_terminal_is_a_terminal_inside_too(runtime: DockerRuntime, spec: ContainerSpec) -> None:
    keyboard, screen = os.openpty()
    result: list[int] = []
    command = shell(
        replace(spec, role="shell"), "test -t 0 && echo terminal; read line; exit $line"
    )

    def session() -> None:
        result.append(runtime.run_interactive(command, Streams(screen, screen, screen)))

    thread = threading.Thread(target=session)
    thread.start()
    seen = b""
    while b"terminal" not in seen:
        ready, _, _ = select.select([keyboard], [], [], 30)
        assert ready, "the container wrote nothing"
        seen += os.read(keyboard, 1000)
    os.write(keyboard, b"42\r")
    thread.join(30)
    os.close(keyboard)
    os.close(screen)
    assert result == [42]


def test_engine_that_does_not_run_is_explained(tmp_path: Path, spec: ContainerSpec) -> None:
    runtime = DockerRuntime(f"unix://{tmp_path}/no.sock")
    with pytest.raises(EngineError, match="not running") as caught:
        runtime.start(spec)
    assert "systemctl start docker" in caught.value.hint
