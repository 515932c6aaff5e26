"""Tasks and make jobs come from CPUs and memory, of the host and of smidr's own container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidr_ci.builds.cgroup import cpu_quota, memory_limit_bytes
from smidr_ci.builds.parallelism import (
    Allowance,
    Parallelism,
    host_cpus,
    host_memory_bytes,
    parallelism_for,
)
from smidr_ci.config.models import ProjectConfig

GIB = 1024**3
SILENT = ProjectConfig(name="project")
UNLIMITED = Allowance(None, None)


def files(root: Path, contents: dict[str, str]) -> Path:
    """The place where a cgroup is mounted, with these files."""
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("cpus", "memory", "builds", "jobs"),
    [
        (8, 64, 1, 8),
        (8, 8, 1, 4),
        (8, 64, 2, 4),
        (32, 32, 4, 4),
        (3, 64, 2, 1),
        (1, 1, 5, 1),
    ],
)
def test_side_by_side_each_build_gets_an_even_share_of_cpus_and_memory(
    cpus: int, memory: int, builds: int, jobs: int
) -> None:
    found = parallelism_for(SILENT, UNLIMITED, cpus=cpus, memory_bytes=memory * GIB, builds=builds)
    assert found == Parallelism(jobs, jobs)


def test_a_builds_own_limits_go_before_its_share() -> None:
    allowance = Allowance(cpus=6, memory_bytes=10 * GIB)
    found = parallelism_for(SILENT, allowance, cpus=16, memory_bytes=64 * GIB, builds=16)
    assert found == Parallelism(5, 5)
    found = parallelism_for(SILENT, allowance, cpus=4, memory_bytes=4 * GIB, builds=16)
    assert found == Parallelism(2, 2)


def test_what_the_config_says_goes_before_all() -> None:
    raw = {"name": "project", "build": {"parallel_make": 9, "bb_number_threads": 3}}
    config = ProjectConfig.model_validate(raw)
    found = parallelism_for(config, UNLIMITED, cpus=1, memory_bytes=GIB, builds=4)
    assert found == Parallelism(threads=3, make_jobs=9)


@pytest.mark.parametrize(
    ("contents", "quota", "limit"),
    [
        ({}, None, None),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"cpu.max": "150000 100000", "memory.max": "1073741824"}, 1.5, GIB),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5, None),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "4", "cpu,cpuacct/cpu.cfs_period_us": "2"}, 2.0, None),
        ({"memory/memory.limit_in_bytes": "2147483648"}, None, 2 * GIB),
        ({"cpu.max": "100000 0", "memory.max": "0"}, None, None),
        ({"cpu.max": "lots", "memory.max": "-5"}, None, None),
        ({"cpu.max": "9" * 300, "memory.max": "9" * 300}, None, None),
    ],
)
def test_the_limits_of_a_container_are_read_in_both_versions(
    tmp_path: Path, contents: dict[str, str], quota: float | None, limit: int | None
) -> None:
    root = files(tmp_path, contents)
    assert (cpu_quota(root), memory_limit_bytes(root)) == (quota, limit)


def test_a_container_with_less_than_the_host_counts_as_the_host(tmp_path: Path) -> None:
    root = files(tmp_path, {"cpu.max": "50000 100000", "memory.max": str(256 * 1024**2)})
    assert host_cpus(root) == 1
    assert host_memory_bytes(root) == 256 * 1024**2


def test_a_container_with_more_than_the_host_changes_nothing(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {"cpu.max": "999900000 100000", "memory/memory.limit_in_bytes": "9223372036854771712"},
    )
    nothing = tmp_path / "nothing"
    assert host_cpus(root) == host_cpus(nothing) == len(os.sched_getaffinity(0))
    assert host_memory_bytes(root) == host_memory_bytes(nothing)
