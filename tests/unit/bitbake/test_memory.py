"""Counting what the kernel killed."""

from __future__ import annotations

from pathlib import Path

from smidr_ci.bitbake.inside.memory import oom_kills


def test_cgroup_v2_counts_in_memory_events(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills((str(counter),)) == 2


def test_cgroup_v1_counts_in_oom_control(tmp_path: Path) -> None:
    counter = tmp_path / "memory.oom_control"
    counter.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert oom_kills((str(tmp_path / "missing"), str(counter))) == 1


def test_where_nobody_counts_there_is_none(tmp_path: Path) -> None:
    assert oom_kills((str(tmp_path / "missing"),)) == 0
