"""Runners of this host, with real processes of a program that is no official runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.forges.github.runners.ports import RunnerState
from tests.fakes.github.runner_bench import RunnerBench, wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RunnerBench]:
    made = RunnerBench(tmp_path)
    yield made
    made.close()


def test_a_runner_takes_one_job_and_ends(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    remote.tell("job image (qemux86-64)")
    busy = bench.state(runners, "smidr-a", RunnerState.BUSY)
    assert (busy.job, busy.had_job, busy.labels) == (
        "image (qemux86-64)",
        True,
        ("self-hosted", "smidr"),
    )
    remote.tell("done Succeeded", "exit 0")
    ended = bench.state(runners, "smidr-a", RunnerState.EXITED)
    assert (ended.exit_code, ended.had_job, ended.is_alive) == (0, True, False)
    runners.stop("smidr-a")
    assert "smidr-a" not in runners.running()
    wait_for(lambda: not bench.place().path.exists())
    wait_for(lambda: not bench.processes())
