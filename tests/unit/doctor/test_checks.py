"""What the doctor makes of a host's facts. The host is a directory of files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.caches.layout import FreeSpace
from smidr_ci.containers.runtime import Handle, User
from smidr_ci.doctor.disk import MountPoint, check_directory, judge_mount, judge_space, mount_of
from smidr_ci.doctor.engine import (
    check_containers,
    check_engine,
    check_images,
    check_installs,
    judge_engine,
)
from smidr_ci.doctor.kernel import (
    check_inotify,
    check_kernel,
    check_memory,
    check_user_namespaces,
)
from smidr_ci.doctor.model import CheckResult, Status
from smidr_ci.doctor.tools import check_git, check_mmdebstrap, check_user
from smidr_ci.engine import Engine, EngineFacts
from smidr_ci.errors import EngineError
from smidr_ci.images.model import StoredImage
from tests.fakes.docker_api import INFO, VERSION, Answer, FakeDockerApi

GIB = 1024**3
FACTS = EngineFacts.from_answers(VERSION, INFO)

Write = Callable[[str, str], Path]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    path = tmp_path / "proc"
    path.mkdir()
    return path


@pytest.fixture
def write(proc: Path) -> Write:
    def to(name: str, text: str) -> Path:
        path = proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return proc

    return to


def only(results: list[CheckResult]) -> CheckResult:
    (result,) = results
    return result


def is_shell(command: str) -> bool:
    return subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ],
)
def test_forbidden_user_namespaces_come_with_the_sysctl_that_allows_them(
    write: Write, name: str, value: str, setting: str
) -> None:
    result = only(check_user_namespaces(write(f"sys/{name}", f"{value}\n")))
    assert result.status is Status.WARN
    assert f"echo '{setting}' | sudo tee" in result.remedy
    assert is_shell(result.remedy)


def test_kernel_without_the_switches_allows_user_namespaces(proc: Path) -> None:
    assert only(check_user_namespaces(proc)).status is Status.OK


def test_low_inotify_limits_are_named_one_by_one(write: Write) -> None:
    write("sys/fs/inotify/max_user_watches", "8192\n")
    proc = write("sys/fs/inotify/max_user_instances", "16\n")
    watches, instances = check_inotify(proc)
    assert "fs.inotify.max_user_watches is 8192" in watches.detail
    assert "fs.inotify.max_user_instances=512" in instances.remedy
    write("sys/fs/inotify/max_user_watches", "524288\n")
    write("sys/fs/inotify/max_user_instances", "512\n")
    assert only(check_inotify(proc)).status is Status.OK


@pytest.mark.parametrize(
    ("release", "status"),
    [("4.9.0-19-amd64", Status.WARN), ("4.19.0", Status.OK), ("6.1.0-44-amd64", Status.OK)],
)
def test_old_kernels_are_warned_of(write: Write, release: str, status: Status) -> None:
    proc = write("sys/kernel/osrelease", f"{release}\n")
    assert only(check_kernel(proc)).status is status


def test_little_memory_for_many_cpus_names_the_parallelism_that_fits(write: Write) -> None:
    proc = write("meminfo", "MemTotal:       8388608 kB\nMemFree:  1 kB\n")
    assert only(check_memory(proc, 4)).status is Status.OK
    result = only(check_memory(proc, 16))
    assert result.status is Status.WARN
    assert "build.parallel_make to 4" in result.remedy


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
40 22 0:50 / /srv rw,noatime - nfs4 host:/srv rw
41 40 8:1 / /srv/my\040disk ro,noexec - xfs /dev/sdb1 ro
42 22 8:2 / /twice rw - ext4 /dev/sdc rw
43 22 8:3 / /twice rw - btrfs /dev/sdd rw
""".lstrip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/a", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/my disk/a", "xfs"),
        ("/twice", "btrfs"),
    ],
)
def test_mount_of_a_path_is_the_deepest_and_the_last(write: Write, path: str, kind: str) -> None:
    found = mount_of(Path(path), write("self/mountinfo", MOUNTS))
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    ("kind", "options", "status", "words"),
    [
        ("ext4", {"rw"}, Status.OK, "reflinks"),
        ("nfs4", {"rw"}, Status.WARN, "locks can't be trusted"),
        ("fuse.sshfs", {"rw"}, Status.WARN, "locks can't be trusted"),
        ("overlay", {"rw"}, Status.WARN, "container's own layer"),
        ("tmpfs", {"rw"}, Status.WARN, "takes memory"),
        ("vfat", {"rw"}, Status.FAIL, "no symlinks"),
        ("ext4", {"ro"}, Status.FAIL, "read-only"),
        ("ext4", {"rw", "noexec"}, Status.FAIL, "noexec"),
    ],
)
def test_file_systems_are_judged_by_what_bitbake_needs(
    tmp_path: Path, kind: str, options: set[str], status: Status, words: str
) -> None:
    result = judge_mount("file system", tmp_path, MountPoint(tmp_path, kind, frozenset(options)))
    assert result.status is status
    assert words in result.detail
    assert bool(result.remedy) == (status is not Status.OK)


@pytest.mark.parametrize(
    ("free", "status"), [(5 * GIB, Status.FAIL), (50 * GIB, Status.WARN), (500 * GIB, Status.OK)]
)
def test_free_disk_is_judged_by_what_a_build_takes(free: int, status: Status) -> None:
    space = FreeSpace(free, 1000 * GIB, 10**7, 10**8)
    assert only(list(judge_space("disk of x", Path("/x"), space, 10 * GIB))).status is status


def test_few_inodes_are_warned_of_unless_the_file_system_has_no_limit() -> None:
    few = FreeSpace(500 * GIB, 1000 * GIB, 1000, 10**7)
    _, result = judge_space("disk of x", Path("/x"), few, GIB)
    assert (result.name, result.status) == ("inodes of x", Status.WARN)
    unlimited = replace(few, free_inodes=0, total_inodes=0)
    assert len(list(judge_space("disk of x", Path("/x"), unlimited, GIB))) == 1


def test_directory_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    names = [result.name for result in check_directory("x", tmp_path / "a", 1, Path("/proc"))]
    assert names[0] == "disk of x"
    assert "file system of x" in names


@pytest.mark.parametrize(
    ("facts", "name", "status", "remedy"),
    [
        (replace(FACTS, is_rootless=True), "rootless engine", Status.FAIL, "DOCKER_HOST"),
        (replace(FACTS, storage_driver="vfs"), "storage driver", Status.WARN, "overlay2"),
        (replace(FACTS, limits_memory=False), "resource limits", Status.WARN, "cgroup_enable"),
        (replace(FACTS, limits_swap=False), "resource limits", Status.WARN, "swapaccount=1"),
        (replace(FACTS, limits_pids=False), "resource limits", Status.WARN, "pids"),
    ],
)
def test_engines_weakness_is_named_with_its_remedy(
    facts: EngineFacts, name: str, status: Status, remedy: str
) -> None:
    result = next(found for found in judge_engine(facts) if found.name == name)
    assert result.status is status
    assert remedy in result.remedy


def test_sound_engine_is_fine() -> None:
    assert {result.status for result in judge_engine(FACTS)} == {Status.OK}
    podman = replace(FACTS, is_podman=True, is_rootless=True)
    assert {result.status for result in judge_engine(podman)} == {Status.OK}


def test_engine_that_does_not_run_fails_with_the_command_that_starts_it(tmp_path: Path) -> None:
    result = only(check_engine(Engine(f"unix://{tmp_path}/none.sock")))
    assert result.status is Status.FAIL
    assert "systemctl start docker" in result.remedy


def test_containers_of_dead_builds_are_offered_for_removal() -> None:
    handles = [Handle("acme-1", "1" * 64), Handle("acme-2", "2" * 64, is_running=False)]
    result = only(check_containers(lambda: handles, lambda build_id: build_id == "acme-1"))
    assert result.status is Status.WARN
    assert "acme-2" in result.detail
    assert result.remedy == f"docker rm -f {'2' * 12}"
    assert only(check_containers(lambda: handles, lambda _: True)).status is Status.OK


def test_leftovers_are_not_reported_twice_when_the_engine_is_away(tmp_path: Path) -> None:
    def away() -> list[Handle]:
        raise EngineError("away")

    def no_images() -> list[StoredImage]:
        raise EngineError("away")

    assert check_containers(away, lambda _: False) == []
    assert check_images(no_images, frozenset) == []
    assert check_installs(Engine(f"unix://{tmp_path}/none.sock")) == []


def test_builder_images_that_no_build_uses_are_offered_for_removal() -> None:
    stored = [
        StoredImage("sha256:1", ("smidr-builder:a",), "builder", 0, GIB),
        StoredImage("sha256:2", ("smidr-builder:b",), "builder", 0, GIB),
        StoredImage("sha256:3", ("smidr-base:c",), "base", 0, GIB),
    ]
    result = only(check_images(lambda: stored, lambda: frozenset({"sha256:1"})))
    assert result.remedy == "docker rmi smidr-builder:b"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeDockerApi]:
    served = FakeDockerApi(tmp_path / "engine.sock")
    served.start()
    yield served
    served.stop()


def test_interrupted_image_builds_are_found_by_name(api: FakeDockerApi) -> None:
    api.on("GET", "/containers/json", Answer(json=[{"Id": "f" * 64}]))
    with closing(Engine(api.url)) as engine:
        result = only(check_installs(engine))
    assert result.remedy == f"docker rm -f {'f' * 12}"
    assert "smidr-image-" in api.asked("GET", "/containers/json")[0].query["filters"]


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_git_is_missing_old_or_fine(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert only(check_git(environ)).status is Status.FAIL
    program(tmp_path / "git", "echo git version 1.8.3.1")
    old = only(check_git(environ))
    assert (old.status, old.remedy) == (Status.FAIL, "apt-get install git")
    program(tmp_path / "git", "echo 'git version 2.39.5 (Apple Git-154)'")
    assert only(check_git(environ)).status is Status.OK


def test_missing_mmdebstrap_is_only_a_warning(tmp_path: Path) -> None:
    result = only(check_mmdebstrap({"PATH": str(tmp_path)}))
    assert (result.status, result.remedy) == (Status.WARN, "apt-get install mmdebstrap")


def test_builder_user_is_shown() -> None:
    assert "uid 1234, gid 100" in only(check_user(User(1234, 100))).detail
