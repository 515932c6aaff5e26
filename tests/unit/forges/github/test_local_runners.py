"""Runners of this host, with real processes of a program that is no official runner."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.errors import BusyError, ConfigError, ConflictError, HostError, UsageError
from smidr_ci.forges.github.runners.ports import LocalRunner, RunnerState
from smidr_ci.forges.github.runners.process import Patience, Processes
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.watch import Timing
from tests.fakes.child import child, kill, line_from
from tests.fakes.github.runner_bench import LONG_S, RunnerBench, wait_for
from tests.fakes.github.runner_program import jit_config, write_archive

EXITED = RunnerState.EXITED
PYTHON = "/usr/bin/python3"
"""For other users, who may not reach the one that runs the tests."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RunnerBench]:
    made = RunnerBench(tmp_path)
    yield made
    made.close()


# One job.


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


# Secrets.


def test_the_configuration_is_on_no_command_line_and_in_no_file_but_the_runners_own(
    bench: RunnerBench,
) -> None:
    bench.environ |= {"SECRET_OF_THE_AGENT": "hush", "https_proxy": "http://proxy:3128"}
    runners = bench.ready()
    remote = bench.start(runners)
    blob = jit_config(remote.control).encode()
    for pid in bench.processes():
        assert blob not in Path(f"/proc/{pid}/cmdline").read_bytes()
    seen = bench.folder / "environment"
    remote.do(f"import json, os; open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))")
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    place = bench.place()
    for path in place.path.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            assert blob not in raw
            is_runners_own = path.is_relative_to(place.root)
            assert is_runners_own or b"a-private-key" not in raw
    environment = json.loads(seen.read_text())
    assert "ACTIONS_RUNNER_INPUT_JITCONFIG" not in environment
    assert "SECRET_OF_THE_AGENT" not in environment
    assert environment["https_proxy"] == "http://proxy:3128"
    assert environment["HOME"] == str(place.home)
    assert environment["SMIDR_AGENT_SOCKET"] == str(bench.home.socket)


def test_jobs_get_the_variables_that_the_operator_lists(bench: RunnerBench) -> None:
    bench.environ |= {"ACTIONS_RUNNER_HOOK_JOB_STARTED": "/opt/hook", "OTHER": "x"}
    bench.set(environment=("ACTIONS_RUNNER_HOOK_JOB_STARTED",))
    runners = bench.ready()
    remote = bench.start(runners)
    seen = bench.folder / "environment"
    remote.do(f"import os; open({str(seen)!r}, 'w').write(repr(sorted(os.environ)))")
    names = wait_for(lambda: seen.exists() and seen.read_text())
    assert "ACTIONS_RUNNER_HOOK_JOB_STARTED" in names
    assert "OTHER" not in names


# Hostile jobs.


def test_what_a_job_leaves_in_the_background_ends_with_it(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    pids = bench.folder / "pids"
    remote.do(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); os.chdir('/')\n"
        "    if os.fork() == 0:\n"
        f"        open({str(pids)!r}, 'w').write(str(os.getpid()))\n"
        "        os.execve('/bin/sleep', ['sleep', '600'], {})\n"
        "    os._exit(0)\n"
    )
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    pid = int(wait_for(lambda: pids.exists() and pids.read_text()))
    wait_for(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    remote.tell("exit 0")
    bench.state(runners, "smidr-a", EXITED)
    assert not Path(f"/proc/{pid}").exists()


def test_a_job_that_forks_without_end_is_ended(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    flag = bench.folder / "flag"
    # Each generation starts the next and ends: whoever kills by list comes too late.
    remote.do(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    open({str(flag)!r}, 'w')\n"
        "    while True:\n"
        "        if os.fork():\n"
        "            os._exit(0)\n"
        "        time.sleep(0.002)\n"
    )
    wait_for(flag.exists)
    remote.tell("exit 0")
    assert bench.state(runners, "smidr-a", EXITED).exit_code == 0
    assert not bench.processes()


def test_a_job_that_kills_its_keeper_does_not_outlive_it(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    keeper = json.loads(bench.place().keeper.read_text())["pid"]
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    remote.do(f"import os; os.kill({keeper}, 9)")
    ended = bench.state(runners, "smidr-a", EXITED)
    assert (ended.exit_code, ended.had_job) == (None, True)
    wait_for(lambda: not bench.processes(), "the job outlived its keeper")


def test_a_job_that_stops_its_keeper_can_be_ended(bench: RunnerBench) -> None:
    runners = bench.ready(timing=Timing(tick_s=0.05, stop_s=0.2), patience=Patience(0.2, 0.2, 5))
    remote = bench.start(runners)
    keeper = json.loads(bench.place().keeper.read_text())["pid"]
    remote.do(f"import os, signal; os.kill({keeper}, signal.SIGSTOP)")
    wait_for(lambda: b") T" in Path(f"/proc/{keeper}/stat").read_bytes())
    runners.stop("smidr-a")
    wait_for(lambda: not bench.place().path.exists())
    wait_for(lambda: not bench.processes())


def test_a_job_that_changes_its_runner_does_not_change_the_next(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    flag = bench.folder / "poisoned"
    remote.do(
        "import glob, os\n"
        "for name in glob.glob('**', recursive=True):\n"
        "    if os.path.isfile(name) and not os.path.islink(name):\n"
        "        os.chmod(name, 0o755)\n"
        f"        open(name, 'w').write('#!/bin/sh\\ntouch {flag}\\n')\n"
        f"for name in glob.glob({str(bench.home.root)!r} + '/*/*.tar.gz'):\n"
        "    open(name, 'wb').write(b'')\n"
        "open(os.path.expanduser('~/.profile'), 'w').write('poison')\n"
    )
    remote.tell("exit 0")
    bench.state(runners, "smidr-a", EXITED)
    runners.stop("smidr-a")
    bench.start(runners, "smidr-b").tell("exit 0")
    assert bench.state(runners, "smidr-b", EXITED).exit_code == 0
    assert not flag.exists()
    assert os.listdir(bench.place("smidr-b").home) == []


def test_a_changed_archive_starts_no_runner(bench: RunnerBench) -> None:
    runners = bench.ready()
    bench.tarball.write_bytes(b"poison")
    with pytest.raises(ConfigError, match="SHA-256") as caught:
        bench.start(runners)
    assert str(bench.tarball) in str(caught.value)
    assert runners.running() == {}
    assert not bench.place().path.exists()
    wait_for(lambda: "SHA-256" in runners.capacity().reason)
    write_archive(bench.tarball)
    bench.set(environment=("OTHER",))  # reloaded, it is looked at again
    wait_for(lambda: runners.capacity().free == 3)


def test_a_full_directory_goes_with_its_job(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    remote.do(
        "import os\n"
        "os.makedirs('_work/deep/' + '/'.join('d' * 50 for _ in range(20)))\n"
        "for n in range(300): open(f'_work/deep/{n}', 'wb').write(b'x' * 10000)\n"
        "os.symlink('/etc', '_work/etc')\n"
        "os.chmod('_work/deep', 0o500)\n"
    )
    remote.tell("exit 0")
    bench.state(runners, "smidr-a", EXITED)
    runners.stop("smidr-a")
    assert not bench.place().path.exists()
    folder = bench.place().path.parent
    wait_for(lambda: os.listdir(folder) == [], "it was set aside and not removed")
    assert os.listdir("/etc")


def test_what_a_runner_prints_is_bounded(bench: RunnerBench) -> None:
    runners = bench.ready()
    remote = bench.start(runners)
    remote.do("import os\nfor _ in range(300): os.write(1, b'y' * 10000 + b'\\n')")
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    assert bench.place().log.stat().st_size < 1_100_000
    remote.tell("exit 0")
    assert bench.state(runners, "smidr-a", EXITED).exit_code == 0


# Ends that somebody wants.


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


# Other agents.


def test_the_next_agent_adopts_what_runs(bench: RunnerBench) -> None:
    first = bench.ready()
    busy, idle = bench.start(first), bench.start(first, "smidr-b")
    busy.tell("job a")
    before = bench.state(first, "smidr-a", RunnerState.BUSY)
    bench.leave()
    second = bench.supervisor()
    after = second.running()
    assert {name: item.state for name, item in after.items()} == {
        "smidr-a": RunnerState.BUSY,
        "smidr-b": RunnerState.IDLE,
    }
    assert after["smidr-a"].started_at == before.started_at
    assert (after["smidr-a"].job, after["smidr-a"].labels) == (before.job, before.labels)
    wait_for(lambda: second.capacity().free == 1)
    busy.tell("exit 0")
    idle.tell("exit 5")
    assert bench.state(second, "smidr-a", EXITED).exit_code == 0
    assert bench.state(second, "smidr-b", EXITED).exit_code == 5


AGENT = """
import sys, threading
from pathlib import Path
from smidr_ci.forges.github.runners.ports import RunnerState
from tests.fakes.github.runner_bench import RunnerBench
from tests.fakes.github.runner_program import jit_config

bench = RunnerBench(Path(sys.argv[1]))
runners = bench.ready()
runners.start("smidr-a", jit_config(Path(sys.argv[2])), ["smidr"])
bench.state(runners, "smidr-a", RunnerState.BUSY)
print("busy", flush=True)
threading.Event().wait()
"""


def test_a_runner_does_not_feel_the_death_of_its_agent(bench: RunnerBench) -> None:
    remote = bench.remote("smidr-a")
    remote.tell("job image")
    with child(AGENT, bench.folder, remote.control) as agent:
        assert line_from(agent) == "busy"
        before = set(bench.processes()) - {agent.pid}
        kill(agent)
    after = bench.supervisor()
    found = after.running()["smidr-a"]
    assert (found.state, found.job, found.labels) == (RunnerState.BUSY, "image", ("smidr",))
    assert set(bench.processes()) == before
    with pytest.raises(ConflictError):
        after.start("smidr-a", "", [])
    remote.tell("done Succeeded", "exit 0")
    assert bench.state(after, "smidr-a", EXITED).exit_code == 0
    wait_for(lambda: not bench.processes())


def test_what_ended_while_there_was_no_agent_is_told_by_the_next(bench: RunnerBench) -> None:
    first = bench.ready()
    remote = bench.start(first)
    bench.leave()
    remote.tell("job a", "done Succeeded", "exit 0")
    wait_for(bench.place().exit.exists)
    second = bench.supervisor()
    ended = bench.state(second, "smidr-a", EXITED)
    assert (ended.exit_code, ended.had_job, ended.job) == (0, True, "a")
    assert second.capacity().free in {0, 3}  # not a slot


def test_an_end_that_was_wanted_goes_on_with_the_next_agent(bench: RunnerBench) -> None:
    bench.start(bench.ready())
    bench.leave()
    bench.place().stopping.touch()  # it died right after that
    second = bench.supervisor()
    assert second.running() == {}
    wait_for(lambda: not bench.place().path.exists())


def test_a_directory_without_a_note_is_removed_with_what_runs_in_it(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    (bench.place().path / "note.json").unlink()
    second = bench.supervisor()
    assert second.running() == {}
    assert not bench.place().path.exists()
    wait_for(lambda: not bench.processes())


def test_a_runner_whose_directory_was_removed_is_ended(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    bench.place().path.rename(bench.folder / "elsewhere")
    bench.supervisor()
    wait_for(lambda: not bench.processes())


def test_a_note_of_before_the_last_start_of_the_host_is_not_believed(bench: RunnerBench) -> None:
    first = bench.ready()
    bench.start(first)
    bench.leave()
    keeper = json.loads(bench.place().keeper.read_text())
    # Another process has the number now: this one.
    bench.place().keeper.write_text(json.dumps({**keeper, "pid": os.getpid()}))
    second = bench.supervisor()
    # The real one is found by what it keeps.
    assert second.running()["smidr-a"].is_alive
    second.stop("smidr-a")
    wait_for(lambda: not bench.place().path.exists())


def test_what_a_removed_registration_left_goes_once_its_job_is_over(bench: RunnerBench) -> None:
    other = bench.ready(name="other")
    remote = bench.start(other)
    bench.leave()
    bench.ready()
    place = bench.place(registration="other")
    assert (place.path / "note.json").exists()
    assert place.keeper.exists()
    remote.tell("exit 0")
    wait_for(place.exit.exists)
    wait_for(lambda: len(bench.processes()) == 0)
    bench.set(environment=("OTHER",))  # reloaded: it looks again
    wait_for(lambda: bench.supervisors[0].capacity() and not place.path.exists())


# Room.


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


# Jobs of another user.


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that any user can enter, as pytest's are not."""
    if os.geteuid() != 0:
        pytest.skip("only root can run jobs as another user")
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"there is no {PYTHON} for other users to run")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_roots_agent_runs_jobs_as_the_user_that_is_set(public: Path) -> None:
    bench = RunnerBench(public, PYTHON, user="4711:4712", directory=str(public / "runners"))
    bench.runners_root = public / "runners"
    runners = bench.ready(body=Processes(bench.host))
    remote = bench.start(runners)
    place = bench.place()
    remote.do(
        "import os, pathlib\n"
        "seen = [os.getresuid(), os.getresgid(), os.getgroups()]\n"
        f"for path in ({str(place.path / 'x')!r}, {str(place.exit)!r}, {str(place.log)!r}):\n"
        "    try: open(path, 'w'); seen.append('written')\n"
        "    except PermissionError: seen.append('refused')\n"
        f"try: os.kill({json.loads(place.keeper.read_text())['pid']}, 9); seen.append('killed')\n"
        "except PermissionError: seen.append('refused')\n"
        "pathlib.Path.home().joinpath('seen').write_text(repr(seen))\n"
    )
    remote.tell("job a")
    bench.state(runners, "smidr-a", RunnerState.BUSY)
    seen = (place.home / "seen").read_text()
    assert seen == repr([(4711,) * 3, (4712,) * 3, [4712], *["refused"] * 4])
    assert (place.root / "bin").stat().st_uid == 4711
    remote.tell("exit 0")
    assert bench.state(runners, "smidr-a", EXITED).exit_code == 0
    runners.stop("smidr-a")
    assert not place.path.exists()
    bench.close()


def test_a_directory_that_the_user_can_not_reach_is_named(public: Path) -> None:
    bench = RunnerBench(public, user="4711")
    bench.home.root.chmod(0o700)
    runners = bench.supervisor(body=Processes(bench.host))
    room = wait_for(lambda: runners.capacity() if "uid 4711" in runners.capacity().reason else None)
    assert f"can't enter {bench.home.root}" in room.reason
    assert "github.runners.directory" in room.reason
    bench.close()
