"""The worker of `examples/hello/bitbake-wheel`, as the run queue sees it: over its two pipes."""

from __future__ import annotations

import logging
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from tests.fakes.hello import EXAMPLE

FAKE_BB = Path(__file__).resolve().parents[2] / "fakes" / "fake_bb.py"
ENOUGH_S = 60.0
INFO = {
    "build_verbose_shell": False,
    "build_verbose_stdout": False,
    "logdefaultlevel": 0,
    "logdefaultdomain": {},
    "prhost": None,
    "hashservaddr": None,
    "umask": "022",
    "sigdata": None,
    "buildname": "name",
    "date": "20240101",
    "time": "120000",
}


class RunQueue:
    """The other side of the worker's pipes."""

    def __init__(self, root: Path, recipe: Path) -> None:
        self.recipe = recipe
        self.process = subprocess.Popen(
            [sys.executable, str(root / "bin" / "bitbake-worker"), "decafbad"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.received = bytearray()

    def send(self, name: str, value: object) -> None:
        data, tag = pickle.dumps(value), name.encode()
        frame = b"<" + tag + b">" + len(data).to_bytes(4, "big") + data + b"</" + tag + b">"
        self._stdin.write(frame)
        self._stdin.flush()

    def introduce(self, **info: object) -> None:
        self.send("cookerconfig", SimpleNamespace(dry_run=False, limited_deps=False, profile=False))
        self.send("extraconfigdata", {"EXTRA": "extra"})
        self.send("workerdata", {**INFO, **info})

    def order(self, name: str, **changes: object) -> None:
        plain = {
            "fn": str(self.recipe),
            "task": f"recipe:{name}",
            "taskname": name,
            "taskhash": "h",
            "unihash": "u",
            "appends": [],
            "layername": "",
            "taskdepdata": {},
            "taskdep": {},
            "quieterrors": False,
            "dry_run": False,
        }
        self.send("runtask", {**plain, **changes})

    def next(self) -> tuple[str, Any]:
        """The next frame: `event` or `exitcode`, and its object."""
        while True:
            for kind in (b"event", b"exitcode"):
                head, tail = b"<" + kind + b">", b"</" + kind + b">"
                if not self.received.startswith(head):
                    continue
                end = self.received.find(tail)
                while end >= 0:
                    try:
                        value = pickle.loads(self.received[len(head) : end])
                    except (pickle.UnpicklingError, EOFError):
                        end = self.received.find(tail, end + 1)
                        continue
                    del self.received[: end + len(tail)]
                    return kind.decode(), value
            chunk = self._read()
            assert chunk, f"the worker ended after {bytes(self.received)!r}: {self.errors()}"
            self.received += chunk

    def next_event(self) -> Any:
        kind, value = self.next()
        assert kind == "event", value
        return value.getMessage() if isinstance(value, logging.LogRecord) else value

    def next_exit(self) -> tuple[str, int]:
        """The next exit code; events before it are dropped."""
        while True:
            kind, value = self.next()
            if kind == "exitcode":
                task, code = value
                return str(task), int(code)

    def finish(self) -> int:
        """Wait for the worker's end; fails when it leaves half a frame."""
        while chunk := self._read():
            self.received += chunk
        code = self.process.wait(ENOUGH_S)
        while self.received:
            self.next()
        return code

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def close_commands(self) -> None:
        self._stdin.close()

    def _read(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ENOUGH_S)
        assert ready, "the worker says nothing"
        return os.read(self.process.stdout.fileno(), 1 << 16)


def wait_until(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(ENOUGH_S / 0.01)):
        if is_so():
            return
        pause.wait(0.01)
    pytest.fail(f"not within {ENOUGH_S} s")


RECIPE = """
import os, signal, subprocess, sys, time

def do_succeed(d, fire):
    fire(("seen", os.environ.get("EXPORTED"), d.getVar("EXTRA"), d.getVar("BB_TASKHASH")))

def do_fail(d, fire):
    return 3

def do_raise(d, fire):
    raise SystemExit(7)

def do_die(d, fire):
    os.kill(os.getpid(), signal.SIGKILL)

def do_print(d, fire):
    print("<event>stray</event>")
    os.write(1, b"<exitcode>")

def do_umask(d, fire):
    fire(os.umask(0))

def do_sleep(d, fire):
    fire("asleep")
    time.sleep(1000)

def do_leave_stubborn_child(d, fire):
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    child = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    child.stdout.readline()
    fire(child.pid)
    time.sleep(1000)

def do_flood(d, fire):
    for number in range(2000):
        fire((d.getVar("BB_TASKHASH"), number, "</event></exitcode>" + "x" * 2000))

def do_mark(d, fire):
    open(os.path.dirname(__file__) + "/" + d.getVar("BB_TASKHASH"), "x").close()

def do_flood_forever(d, fire):
    number = 0
    while True:
        fire((number, "x" * 5000))
        number += 1
"""


@pytest.fixture
def worker_root(tmp_path: Path) -> Path:
    root = tmp_path / "bitbake"
    shutil.copytree(EXAMPLE / "bitbake-wheel", root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "lib" / "bb").mkdir()
    shutil.copy(FAKE_BB, root / "lib" / "bb" / "__init__.py")
    return root


@pytest.fixture
def queue(worker_root: Path, tmp_path: Path) -> Iterator[RunQueue]:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE)
    queue = RunQueue(worker_root, recipe)
    queue.introduce()
    yield queue
    queue.close()


def test_task_sees_its_environment_and_variables(queue: RunQueue) -> None:
    queue.order("do_succeed")
    assert queue.next_event() == ("seen", "from the configuration", "extra", "h")
    assert queue.next() == ("exitcode", ("recipe:do_succeed", 0))


@pytest.mark.parametrize(
    ("task", "code"), [("do_fail", 3), ("do_raise", 1), ("do_die", 128 + signal.SIGKILL)]
)
def test_exit_code_says_how_a_task_ended(queue: RunQueue, task: str, code: int) -> None:
    queue.order(task)
    assert queue.next_exit() == (f"recipe:{task}", code)


def test_unparsable_recipe_fails_its_task_with_the_reason(queue: RunQueue) -> None:
    queue.order("do_succeed", fn="/no/such/recipe.py")
    assert "FileNotFoundError: /no/such/recipe.py" in queue.next_event()
    assert queue.next_exit() == ("recipe:do_succeed", 1)


def test_restore_that_may_fail_says_nothing(queue: RunQueue) -> None:
    queue.order("do_succeed", fn="/no/such/recipe.py", quieterrors=True)
    assert queue.next() == ("exitcode", ("recipe:do_succeed", 1))


def test_dry_run_runs_nothing(queue: RunQueue) -> None:
    queue.order("do_fail", dry_run=True)
    assert queue.next() == ("exitcode", ("recipe:do_fail", 0))


def test_task_gets_its_own_umask_or_the_general_one(queue: RunQueue) -> None:
    queue.order("do_umask", taskdep={"umask": {"do_umask": "077"}})
    assert queue.next_event() == 0o077
    queue.next_exit()
    queue.order("do_umask", taskdep={"umask": {"do_other": "077"}})
    assert queue.next_event() == 0o022


def test_what_a_task_prints_does_not_reach_the_run_queue(queue: RunQueue) -> None:
    queue.order("do_print")
    assert queue.next() == ("exitcode", ("recipe:do_print", 0))


def test_many_tasks_at_once_send_whole_events_in_order(queue: RunQueue) -> None:
    seen: dict[str, list[int]] = {f"flood-{number}": [] for number in range(4)}
    for name in seen:
        queue.order("do_flood", task=name, taskhash=name)
    ended: set[str] = set()
    while len(ended) < len(seen):
        kind, value = queue.next()
        if kind == "event":
            seen[value[0]].append(value[1])
        else:
            ended.add(value[0])
            assert value[1] == 0
            assert seen[value[0]] == list(range(2000))


def test_quit_ends_the_worker(queue: RunQueue) -> None:
    queue.send("quit", b"")
    assert queue.finish() == 0


def test_finishnow_ends_tasks_and_reports_them(queue: RunQueue) -> None:
    queue.order("do_sleep")
    assert queue.next_event() == "asleep"
    queue.send("finishnow", b"")
    assert queue.next_event() == "Sending SIGTERM to remaining 1 tasks"
    assert queue.next_exit() == ("recipe:do_sleep", 128 + signal.SIGTERM)
    queue.send("quit", b"")
    assert queue.finish() == 0


def test_process_that_ignores_the_end_of_its_task_is_killed(queue: RunQueue) -> None:
    queue.order("do_leave_stubborn_child")
    child = queue.next_event()
    queue.send("finishnow", b"")
    queue.send("quit", b"")
    assert queue.finish() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_closed_command_pipe_ends_tasks_and_worker(queue: RunQueue) -> None:
    queue.order("do_sleep")
    assert queue.next_event() == "asleep"
    queue.close_commands()
    assert queue.next_exit() == ("recipe:do_sleep", 128 + signal.SIGTERM)
    assert queue.finish() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_tasks_and_worker(queue: RunQueue, number: signal.Signals) -> None:
    queue.order("do_sleep")
    assert queue.next_event() == "asleep"
    queue.process.send_signal(number)
    assert queue.next_event() == f"Worker received {number.name}, shutting down..."
    assert queue.next_exit() == ("recipe:do_sleep", 128 + signal.SIGTERM)
    assert queue.finish() == 1


def test_interrupt_from_the_keyboard_is_left_to_the_run_queue(queue: RunQueue) -> None:
    queue.order("do_sleep")
    assert queue.next_event() == "asleep"
    queue.process.send_signal(signal.SIGINT)
    queue.order("do_succeed")
    assert queue.next_exit() == ("recipe:do_succeed", 0)


def test_killed_task_leaves_no_part_of_a_frame(queue: RunQueue) -> None:
    queue.order("do_flood_forever")
    for expected in range(20):
        assert queue.next_event()[0] == expected
    queue.send("finishnow", b"")
    queue.send("quit", b"")
    assert queue.finish() == 0


def test_slow_reader_holds_tasks_back_instead_of_filling_memory(
    queue: RunQueue, tmp_path: Path
) -> None:
    queue.order("do_flood_forever")
    assert queue.next_event()[0] == 0
    # Nothing is read from here on. The time of twenty tasks is enough for a hundred megabytes.
    for number in range(20):
        queue.order("do_mark", taskhash=f"mark-{number}")
        wait_until((tmp_path / f"mark-{number}").exists)
    status = Path(f"/proc/{queue.process.pid}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 60_000


def test_wrong_protocol_ends_the_worker_with_a_reason(queue: RunQueue) -> None:
    queue.send("mischief", b"")
    assert queue.finish() == 1
    assert "there is no command 'mischief'" in queue.errors()


def test_worker_is_not_for_people(worker_root: Path) -> None:
    program = str(worker_root / "bin" / "bitbake-worker")
    for arguments in ([], ["help"], ["decafbadbeef"]):
        run = subprocess.run(
            [sys.executable, program, *arguments], capture_output=True, check=False
        )
        assert run.returncode == 1
        assert b"Traceback" not in run.stderr
