"""Runners of this host, with real processes of a program that is no official runner."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from smidr_ci.errors import BusyError, ConflictError, HostError, ImageError, UsageError
from smidr_ci.forges.github.runners.container import Containers
from smidr_ci.forges.github.runners.ports import LocalRunner, RunnerState
from smidr_ci.forges.github.runners.process import Patience
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.watch import Timing
from tests.fakes.github.runner_bench import LONG_S, RunnerBench, wait_for
from tests.fakes.github.runner_program import write_archive

EXITED = RunnerState.EXITED


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
    assert (busy.job, busy.had_job) == ("image (qemux86-64)", True)
    assert busy.labels == ("self-hosted", "smidr")
    remote.tell("done Succeeded", "exit 0")
    ended = bench.state(runners, "smidr-a", EXITED)
    assert (ended.exit_code, ended.had_job, ended.is_alive) == (0, True, False)
    runners.stop("smidr-a")
    assert "smidr-a" not in runners.running()
    assert not bench.place().path.exists()
    wait_for(lambda: not bench.processes(), "something still runs")


@pytest.mark.parametrize("code", [0, 1, 5, 6, 7, 99])
def test_each_exit_code_is_told_as_it_is(bench: RunnerBench, code: int) -> None:
    runners = bench.ready()
    bench.start(runners, at_once=code)
    ended = bench.state(runners, "smidr-a", EXITED)
    assert (ended.exit_code, ended.had_job) == (code, False)


def test_what_a_runner_without_a_job_said_last_is_in_the_agents_log(
    bench: RunnerBench, caplog: pytest.LogCaptureFixture
) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    remote.do("print('An error occurred: Not configured.\\x1b[31m')")
    remote.tell("exit 1")
    bench.state(runners, "smidr-a", EXITED)
    assert "smidr-a said: An error occurred: Not configured." in caplog.text
    assert "\x1b" not in caplog.text


def test_changes_are_told_to_who_listens(bench: RunnerBench) -> None:
    runners = bench.ready()
    heard = threading.Event()
    end = runners.listen(heard.set)
    remote = bench.start(runners)
    heard.clear()
    remote.tell("job a")
    assert heard.wait(LONG_S)
    end()
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    heard.clear()
    remote.tell("exit 0")
    bench.state(runners, "smidr-a", EXITED)
    assert not heard.is_set()


def test_a_job_whose_name_is_a_trick_does_not_pass_for_over(bench: RunnerBench) -> None:
    runners = bench.ready(timing=Timing(tick_s=0.05, over_s=0.0))
    remote = bench.start(runners)
    remote.tell("job x completed with result: Succeeded \x1b[2J")
    busy = bench.state(runners, "smidr-a", RunnerState.BUSY)
    assert "\x1b" not in busy.job
    remote.do(f"open({str(bench.folder / 'done')!r}, 'w')")
    wait_for((bench.folder / "done").exists)
    assert runners.running()["smidr-a"].is_alive


def test_a_runner_that_stays_after_its_job_is_ended(bench: RunnerBench) -> None:
    runners = bench.ready(timing=Timing(tick_s=0.05, over_s=0.2))
    remote = bench.start(runners)
    remote.tell("job a", "done Failed")
    assert bench.state(runners, "smidr-a", EXITED).had_job


def test_a_runner_that_must_try_again_is_started_again(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    remote.tell("exit 2")
    remote.tell("job a")  # of the second one
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    remote.tell("exit 0")
    assert bench.state(runners, "smidr-a", EXITED).exit_code == 0
    assert bench.place().log.read_text().count("Listening for Jobs") == 2


def test_a_runner_that_never_works_is_not_tried_for_ever(bench: RunnerBench) -> None:
    runners = bench.ready()
    bench.start(runners, at_once=2)
    assert bench.state(runners, "smidr-a", EXITED).exit_code == 2


@pytest.mark.parametrize("code", [3, 4])
def test_a_runner_that_updates_itself_comes_back(bench: RunnerBench, code: int) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    (bench.place().root / "update.finished").touch()
    remote.tell(f"exit {code}", "job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    assert not (bench.place().root / "update.finished").exists()


def test_a_deprecated_version_starts_no_more_runners_until_there_is_another(
    bench: RunnerBench,
) -> None:
    runners = bench.ready()
    assert runners.version == "2.336.0"
    bench.start(runners, at_once=7)
    bench.state(runners, "smidr-a", EXITED)
    room = wait_for(lambda: runners.capacity() if runners.capacity().free == 0 else None)
    assert "version 2.336.0 any more" in room.reason
    assert not room.is_short
    with pytest.raises(HostError, match="any more"):
        runners.start("smidr-b", "", [])
    newer = bench.folder / "actions-runner-linux-x64-2.337.0.tar.gz"
    bench.set(tarball=newer, sha256=write_archive(newer, "2.337.0"))
    wait_for(lambda: runners.capacity().free)
    assert runners.version == "2.337.0"


def test_a_runner_without_a_job_is_stopped_and_nothing_is_left(bench: RunnerBench) -> None:
    runners = bench.ready()
    bench.start(runners)
    log = bench.place().log
    with log.open() as file:
        runners.stop("smidr-a")
        assert "smidr-a" not in runners.running()
        wait_for(lambda: not bench.place().path.exists())
        assert "Exiting..." in file.read()
    wait_for(lambda: runners.capacity().free == 3)
    runners.stop("smidr-a")
    runners.stop("nobody")


def test_a_runner_that_hears_nothing_is_killed(bench: RunnerBench) -> None:
    runners = bench.ready(patience=Patience(interrupt_s=0.1, terminate_s=0.1, reap_s=5.0))
    remote = bench.start(runners, deaf=True)
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    runners.stop("smidr-a")
    wait_for(lambda: not bench.place().path.exists())
    wait_for(lambda: not bench.processes())


def test_slots_are_those_of_all_registrations_together(bench: RunnerBench) -> None:
    slots = Slots()
    bench.set(slots=1)
    first, second = bench.ready(slots=slots), bench.ready(name="other", slots=slots)
    bench.start(first)
    assert second.capacity().free == 0
    assert "all 1 slots" in second.capacity().reason
    assert not second.capacity().is_short
    with pytest.raises(BusyError, match="all 1 slots"):
        second.start("smidr-b", "", [])
    first.stop("smidr-a")
    wait_for(lambda: second.capacity().free == 1)


def test_there_is_no_room_on_a_full_disk(bench: RunnerBench) -> None:
    runners = bench.ready()
    limits = bench.agent.limits.model_copy(update={"min_free_disk": 1 << 52})
    bench.agent = bench.agent.model_copy(update={"limits": limits})
    room = runners.capacity()
    assert (room.free, room.is_short) == (0, True)
    assert "limits.min_free_disk" in room.reason


def test_there_is_no_room_without_an_official_runner(bench: RunnerBench) -> None:
    bench.tarball.unlink()
    runners = bench.supervisor()
    room = wait_for(lambda: runners.capacity() if "no official" in runners.capacity().reason else 0)
    assert (room.free, room.is_short) == (0, False)
    assert str(bench.tarball) in room.reason
    with pytest.raises(HostError):
        runners.start("smidr-a", "", [])


class NoImages:
    """An image store without a registry."""

    def ensure(self, *_: object, **__: object) -> None:
        raise ImageError("the registry does not answer")


def test_an_image_that_can_not_be_had_is_the_reason_for_no_room(bench: RunnerBench) -> None:
    bench.set(mode="container", image="registry.example.com/runner:1")
    host = bench.host()
    vars(host).update(images=NoImages())
    body = Containers(lambda: host)
    with pytest.raises(ImageError):
        body.prepare()
    with pytest.raises(HostError, match="runner:1 is not here yet: the registry does not answer"):
        body.check()
    bench.set(mode="process")


def test_names_are_unique_and_safe(bench: RunnerBench) -> None:
    runners = bench.ready()
    bench.start(runners)
    with pytest.raises(ConflictError):
        runners.start("smidr-a", "", [])
    for name in ("", ".", "..", ".hidden", "a/b", "a\0", "x" * 65, "-x"):
        with pytest.raises(UsageError):
            runners.start(name, "", [])
    assert set(runners.running()) == {"smidr-a"}


def test_what_can_not_be_started_leaves_nothing(bench: RunnerBench) -> None:
    runners = bench.ready()
    broken = bench.folder / "actions-runner-linux-x64-2.338.0.tar.gz"
    bench.set(tarball=broken, sha256=write_archive(broken, "2.338.0", interpreter="/nowhere/sh"))
    wait_for(lambda: runners.capacity().free and runners.version == "2.338.0")
    with pytest.raises(HostError, match="can't be started"):
        bench.start(runners)
    children = psutil.Process().children()
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    assert runners.running() == {}
    assert not bench.place().path.exists()
    wait_for(lambda: runners.capacity().free == 3)


def test_the_time_in_a_state_is_told(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    idle = runners.running()["smidr-a"]
    assert timedelta() <= idle.changed_at - idle.started_at < timedelta(minutes=1)
    remote.tell("job a")
    busy: LocalRunner = bench.state(runners, "smidr-a", RunnerState.BUSY)
    assert busy.changed_at >= idle.changed_at
