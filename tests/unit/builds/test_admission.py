"""A host without enough disk or memory starts no build, and says what is short where."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from smidr_ci.builds.admission import HostAdmission, admission_of, device_of
from smidr_ci.builds.pressure import memory_pressure
from smidr_ci.builds.slots import Waiting
from smidr_ci.caches.layout import FreeSpace
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import FailureKind, HostError
from smidr_ci.home import Home
from tests.fakes.disk import small_disk

GIB = 1024**3
BUILD = Waiting("acme-00000000", "acme", 1)
HOME = Path("/home/smidr")


class Disks:
    """File systems by the beginning of their paths; `looks` lists the paths that were looked at."""

    def __init__(self, **spaces: FreeSpace | OSError) -> None:
        self.spaces = spaces
        self.looks: list[Path] = []

    def device(self, path: Path) -> int:
        return list(self.spaces).index(path.parts[1])

    def free(self, path: Path) -> FreeSpace:
        self.looks.append(path)
        found = self.spaces[path.parts[1]]
        if isinstance(found, OSError):
            raise found
        return found


def space(free: float, total: float = 1000, inodes: tuple[int, int] = (50, 100)) -> FreeSpace:
    return FreeSpace(int(free * GIB), int(total * GIB), *inodes)


def admission(
    disks: Disks, limits: Mapping[str, object] | None = None, pressure: float | None = None
) -> HostAdmission:
    """Of a home on /home, with sstate on /fast."""
    raw = {"limits": limits or {}, "directories": {"sstate": "/fast/sstate"}}
    real = admission_of(AgentConfig.model_validate(raw), Home(HOME))
    return replace(real, free=disks.free, device=disks.device, pressure=lambda: pressure)


def test_a_host_with_room_admits_and_each_file_system_is_looked_at_once() -> None:
    disks = Disks(home=space(500), fast=space(500))
    check = admission(disks)
    assert check.check(BUILD) is None
    check.require()
    assert disks.looks == [HOME, Path("/fast/sstate")] * 2


def test_too_few_bytes_name_the_place_and_the_key() -> None:
    check = admission(Disks(home=space(12.34, total=30), fast=space(500)))
    assert check.check(BUILD) == (
        "only 12.3 GiB are free, and a build wants 20.0 GiB at /home/smidr (limits.min_free_disk)"
    )
    lower = admission(Disks(home=space(12.34, total=30), fast=space(500)), {"min_free_disk": "12G"})
    assert lower.check(BUILD) is None


def test_too_small_a_part_of_a_large_disk_is_refused_too() -> None:
    disks = Disks(home=space(500), fast=space(99.5))
    assert admission(disks).check(BUILD) == (
        "only 99.5 GiB are free of 1000.0 GiB, and a build wants 10 %"
        " at /fast/sstate (limits.min_free_disk_percent)"
    )
    assert admission(disks, {"min_free_disk_percent": 9.95}).check(BUILD) is None
    assert admission(disks, {"min_free_disk_percent": 0}).check(BUILD) is None


def test_inodes_run_out_before_bytes() -> None:
    disks = Disks(home=space(500, inodes=(9, 100)), fast=space(500))
    assert admission(disks).check(BUILD) == (
        "only 9 of 100 inodes are free, and a build wants 10 %"
        " at /home/smidr (limits.min_free_disk_percent)"
    )
    assert admission(disks, {"min_free_disk_percent": 9}).check(BUILD) is None


def test_a_file_system_that_makes_inodes_as_needed_has_enough() -> None:
    assert admission(Disks(home=space(500, inodes=(0, 0)), fast=space(500))).check(BUILD) is None


def test_a_file_system_that_cannot_be_looked_at_is_named() -> None:
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/fast/sstate")
    check = admission(Disks(home=space(500), fast=stale))
    assert check.check(BUILD) == "can't see the free space of /fast/sstate: Stale file handle"
    with pytest.raises(HostError, match="of /fast/sstate: Stale file handle") as caught:
        check.require()
    assert caught.value.kind is FailureKind.HOST


def test_a_refused_build_is_told_what_to_free_or_lower() -> None:
    with pytest.raises(HostError) as caught:
        admission(Disks(home=space(1), fast=space(500))).require()
    error = caught.value
    assert error.kind is FailureKind.DISK
    assert error.where == str(HOME)
    assert error.message == "only 1.0 GiB are free, and a build wants 20.0 GiB"
    assert "smidr artifacts clean" in error.hint
    assert error.hint.endswith(f"lower limits.min_free_disk in {HOME}/agent.yaml.")


def test_a_builds_own_directories_are_asked_for_too() -> None:
    disks = Disks(home=space(500), fast=space(500), mnt=space(3))
    check = admission(disks)
    check.require((HOME / "elsewhere",))
    with pytest.raises(HostError) as caught:
        check.require((HOME / "elsewhere", Path("/mnt/work")))
    assert caught.value.where == "/mnt/work"


def test_disk_is_checked_for_a_foreground_build_and_memory_is_not() -> None:
    check = admission(Disks(home=space(500), fast=space(500)), pressure=100.0)
    assert check.check(BUILD)
    check.require()


def test_memory_pressure_above_the_limit_is_refused() -> None:
    disks = Disks(home=space(500), fast=space(500))
    assert admission(disks, pressure=20.0).check(BUILD) is None
    assert admission(disks, pressure=23.4).check(BUILD) == (
        "memory is short: tasks stalled 23 % of the last 10 s, at most 20 % are allowed"
        " (limits.max_memory_pressure)"
    )
    assert admission(disks, {"max_memory_pressure": 50}, pressure=23.4).check(BUILD) is None
    assert admission(disks, {"max_memory_pressure": 0}, pressure=99.0).check(BUILD) is None


@pytest.mark.parametrize(
    ("limit", "pressure", "is_seen"), [(20, 0.0, True), (20, None, False), (0, 5.0, False)]
)
def test_whether_memory_pressure_is_seen_can_be_shown(
    limit: float, pressure: float | None, is_seen: bool
) -> None:
    disks = Disks(home=space(500), fast=space(500))
    check = admission(disks, {"max_memory_pressure": limit}, pressure=pressure)
    assert check.sees_pressure is is_seen
    assert check.check(BUILD) is None


def test_the_operators_directories_and_the_homes_own_are_watched() -> None:
    chosen = {"downloads": "/a/dl", "artifacts": "/b/art", "workspaces": "/c/ws"}
    agent = AgentConfig.model_validate({"directories": chosen})
    assert admission_of(agent, Home(HOME)).paths == (
        HOME,
        *(Path("/c/ws"), Path("/a/dl"), HOME / "sstate-cache", Path("/b/art")),
    )


def test_a_real_small_disk_is_refused_and_one_byte_is_enough_for_the_modest(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        home = Home(disk)
        with pytest.raises(HostError, match=r"only 0\.0 GiB are free") as caught:
            admission_of(AgentConfig(), home).require()
        assert caught.value.where == str(disk)
        agent = AgentConfig.model_validate({"limits": {"min_free_disk": 1}})
        admission_of(agent, home).require()


def test_directories_to_come_lie_on_the_file_system_of_their_parent(tmp_path: Path) -> None:
    assert device_of(tmp_path / "not" / "there") == device_of(tmp_path)


# The kernel's file.


def pressure_in(tmp_path: Path, text: str) -> float | None:
    path = tmp_path / "memory"
    path.write_bytes(text.encode())
    return memory_pressure(path)


def test_the_share_of_stalled_time_is_read_from_the_line_of_some(tmp_path: Path) -> None:
    text = (
        "some avg10=23.41 avg60=4.00 avg300=0.50 total=236604\n"
        "full avg10=99.00 avg60=3.00 avg300=0.40 total=147660\n"
    )
    assert pressure_in(tmp_path, text) == 23.41


def test_other_lines_and_new_fields_do_not_disturb(tmp_path: Path) -> None:
    text = "full avg10=9.00 total=1\nsome new=1 avg10=7.50\n"
    assert pressure_in(tmp_path, text) == 7.5


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "some \n", "some avg10=\n", "some avg10=nan avg60=1\n", "some avg10=-1\n"),
        *("full avg10=9.00 total=1\n", "some\nfull avg10=9.00\n", "some avg10=12.5x\n"),
        *("some avg10=101.00\n", "some avg10=1e9\n", "\x00\xff" * 9000, "some " * 9000),
    ],
)
def test_what_cannot_be_read_is_no_pressure(tmp_path: Path, text: str) -> None:
    assert pressure_in(tmp_path, text) is None


def test_a_kernel_that_does_not_measure_it_is_no_fault(tmp_path: Path) -> None:
    assert memory_pressure(tmp_path / "missing") is None
    assert memory_pressure(tmp_path) is None


def test_this_kernel_is_read_without_fault() -> None:
    found = memory_pressure()
    assert found is None or 0 <= found <= 100
