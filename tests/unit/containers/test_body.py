"""The request for a container: what confines a build, and what is refused before."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.containers.body import check_spec, container_name, create_body
from smidr_ci.containers.runtime import ContainerSpec, Mount, User
from smidr_ci.engine import EngineFacts
from smidr_ci.errors import EngineError
from tests.fakes.docker_api import INFO, VERSION

FACTS = EngineFacts.from_answers(VERSION, INFO)
SPEC = ContainerSpec("acme-00c0ffee", "sha256:1", ("python3", "x.py"), User(1000, 1001))
URL = "unix:///var/run/docker.sock"


def test_nothing_of_the_image_decides_what_runs() -> None:
    body = create_body(SPEC, FACTS)
    assert (body["Entrypoint"], body["Cmd"]) == (["python3"], ["x.py"])
    assert (body["User"], body["WorkingDir"]) == ("1000:1001", "/smidr/build")
    assert body["Healthcheck"] == {"Test": ["NONE"]}


def test_entrypoint_comes_before_the_command() -> None:
    body = create_body(replace(SPEC, entrypoint=("nice", "-n5")), FACTS)
    assert (body["Entrypoint"], body["Cmd"]) == (["nice"], ["-n5", "python3", "x.py"])


def test_build_is_confined() -> None:
    host = create_body(SPEC, FACTS)["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Init"] is True
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["LogConfig"]["Config"]["max-size"] == "1m"
    assert not {"Privileged", "CapAdd", "Devices", "PidMode", "IpcMode"} & set(host)


def test_memory_limit_includes_swap_and_cpus_do_not_exceed_the_host() -> None:
    host = create_body(replace(SPEC, memory_bytes=8 << 30, cpus=2.5), FACTS)["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 8 << 30
    assert host["NanoCpus"] == 2_000_000_000


def test_our_labels_win_over_the_callers() -> None:
    labels = {"io.smidr.build-id": "other", "io.smidr.project": "p"}
    found = create_body(replace(SPEC, labels=labels), FACTS)["Labels"]
    assert found == {
        "io.smidr.build-id": "acme-00c0ffee",
        "io.smidr.role": "build",
        "io.smidr.project": "p",
    }


def test_only_a_build_has_a_fixed_name() -> None:
    assert container_name(SPEC, "ab") == "smidr-build-acme-00c0ffee"
    assert container_name(replace(SPEC, role="shell"), "ab") == "smidr-shell-acme-00c0ffee-ab"


def test_environment_has_a_home_and_what_the_spec_says() -> None:
    environment = create_body(replace(SPEC, environment={"HOME": "/x", "A": "b"}), FACTS)["Env"]
    assert set(environment) == {"HOME=/x", "USER=builder", "LOGNAME=builder", "A=b"}


@pytest.mark.parametrize(
    ("facts", "mode"),
    [
        (FACTS, None),
        (replace(FACTS, has_user_remap=True), "host"),
        (replace(FACTS, is_podman=True, is_rootless=True), "keep-id"),
        (replace(FACTS, is_podman=True), None),
    ],
)
def test_files_belong_to_the_host_user_whatever_the_engine_maps(
    facts: EngineFacts, mode: str | None
) -> None:
    host = create_body(SPEC, facts)["HostConfig"]
    assert host.get("UsernsMode") == mode


def test_selinux_is_met_without_relabelling_the_hosts_files() -> None:
    host = create_body(SPEC, replace(FACTS, has_selinux=True))["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges", "label=disable"]


def test_root_is_refused() -> None:
    with pytest.raises(EngineError, match="as root"):
        check_spec(replace(SPEC, user=User(0, 0)), FACTS, URL)


def test_rootless_docker_is_refused_and_podman_is_not() -> None:
    with pytest.raises(EngineError, match="rootless Docker"):
        check_spec(SPEC, replace(FACTS, is_rootless=True), URL)
    check_spec(SPEC, replace(FACTS, is_rootless=True, is_podman=True), URL)


def test_missing_mount_source_is_named(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "gone", PurePosixPath("/smidr/layers/x"))
    with pytest.raises(EngineError, match=r"gone at /smidr/layers/x: No such file") as caught:
        check_spec(replace(SPEC, mounts=(mount,)), FACTS, URL)
    assert caught.value.where == str(tmp_path / "gone")


def test_engine_socket_never_gets_inside(tmp_path: Path) -> None:
    path = tmp_path / "run" / "docker.sock"
    path.parent.mkdir()
    os.mknod(path, stat.S_IFSOCK | 0o600)
    (tmp_path / "link").symlink_to(path.parent)
    for source, words in (
        (path, "neither a directory nor a file"),
        (path.parent, "holds the container engine's socket"),
        (tmp_path / "link", "holds the container engine's socket"),
    ):
        mount = Mount(source, PurePosixPath("/x"))
        with pytest.raises(EngineError, match=words):
            check_spec(replace(SPEC, mounts=(mount,)), FACTS, f"unix://{path}")


def test_two_mounts_in_one_place_are_refused(tmp_path: Path) -> None:
    mount = Mount(tmp_path, PurePosixPath("/smidr/build"))
    with pytest.raises(EngineError, match="/smidr/build"):
        check_spec(replace(SPEC, mounts=(mount, mount)), FACTS, URL)
