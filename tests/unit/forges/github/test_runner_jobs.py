"""What jobs of a runner see and leave: hostile ones, and those of another user."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.errors import ConfigError
from smidr_ci.forges.github.runners.ports import RunnerState
from smidr_ci.forges.github.runners.process import Patience, Processes
from smidr_ci.forges.github.runners.watch import Timing
from tests.fakes.github.runner_bench import RunnerBench, wait_for
from tests.fakes.github.runner_program import jit_config, write_archive

EXITED = RunnerState.EXITED
PYTHON = "/usr/bin/python3"
"""For other users, who may not reach the one that runs the tests."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RunnerBench]:
    made = RunnerBench(tmp_path)
    yield made
    made.close()


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
