"""Keeps one runner: starts it, bounds its log, notes its exit code, ends whatever it left running.

Run by itself, `python -I -S keeper.py FOLDER`, so that it outlives the agent: only the standard
library, nothing of smidr's. It is the reaper of all that the job starts (PR_SET_CHILD_SUBREAPER):
a process that leaves its session or its parent still ends here.

stdin: one JSON object, see `Order`. stdout: one line of JSON, `{"pid": N}` or `{"error": TEXT}`.
FOLDER gets `keeper.json` (who keeps it) and at the end `exit.json` (how it ended).
SIGTERM ends the runner in good order, a second one at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

__all__ = ["Keeper", "Order", "identity", "main"]

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
RETRYABLE, UPDATING, UPDATING_ONCE = 2, 3, 4
UPDATE_FINISHED = "update.finished"
_MOST_ORDER = 4 << 20
_LOOK_S = 0.2
_DROPPED = b"\n(smidr: more than the log may hold; the rest is left out)\n"


@dataclass(frozen=True)
class Order:
    """What to run and how to end it."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str
    log_bytes: int
    ids: list[int] | None = None
    """uid and gid of the runner, when it runs as another user."""
    interrupt_s: float = 30.0
    """From SIGINT to SIGTERM."""
    terminate_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    reap_s: float = 30.0
    """How long to end what the runner left; what sits in the kernel may take for ever."""
    restarts: int = 3
    restart_s: float = 5.0
    update_s: float = 30.0
    """How long the runner's own update may take to replace its files."""


def identity(pid: int) -> dict[str, Any]:
    """What tells a process from a later one with its number; raises `OSError`."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return {"pid": pid, "started": int(fields[19]), "boot": boot}


class Keeper:
    """One runner from its start to the end of all its processes."""

    def __init__(self, folder: str, order: Order) -> None:
        self.folder = folder
        self.order = order
        self.runner = -1
        self.code: int | None = None
        self.stops = 0
        self.left = order.log_bytes
        self.log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self.wake, wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.wake, selectors.EVENT_READ)

    def _asked(self, *_: object) -> None:
        self.stops += 1

    def start(self) -> None:
        """Start the runner; raises `OSError` or `subprocess.SubprocessError`."""
        reading, writing = os.pipe()
        ids: dict[str, Any] = {}
        if self.order.ids is not None:
            uid, gid = self.order.ids
            ids = {"user": uid, "group": gid, "extra_groups": [gid], "umask": 0o022}
        try:
            process = subprocess.Popen(
                self.order.argv,
                env=self.order.env,
                cwd=self.order.cwd,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                **ids,
            )
        finally:
            os.close(writing)
        self.runner, self.code = process.pid, None
        process.returncode = 0  # it is waited for here, with all others
        os.set_blocking(reading, False)
        self.selector.register(reading, selectors.EVENT_READ)

    def keep(self) -> int:
        """Until the runner has ended for good; its exit code."""
        restarts = 0
        while True:
            code = self._until_its_end()
            if self.stops or restarts >= self.order.restarts or not self._is_coming_back(code):
                return code
            restarts += 1
            try:
                self.start()
            except (OSError, subprocess.SubprocessError) as error:
                self._write(f"\n(smidr: can't start it again: {error})\n".encode())
                return code

    def _until_its_end(self) -> int:
        ladder = [
            (signal.SIGINT, self.order.interrupt_s),
            (signal.SIGTERM, self.order.terminate_s),
            (signal.SIGKILL, 5.0),
        ]
        due = None
        while self.code is None:
            if self.stops > 1:
                self._signal(signal.SIGKILL)
            elif self.stops and (due is None or time.monotonic() >= due) and ladder:
                number, patience_s = ladder.pop(0)
                self._signal(number)
                due = time.monotonic() + patience_s
            self._turn(_LOOK_S if self.stops else None)
        return self.code

    def _signal(self, number: int) -> None:
        """SIGINT is for the listener alone, which ends its job; others are for its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGINT:
                os.kill(self.runner, number)
            else:
                os.killpg(self.runner, number)

    def _is_coming_back(self, code: int) -> bool:
        """What the runner's own run.sh does with these codes (actions/runner, run-helper.sh)."""
        if code == RETRYABLE:
            return self._pause(self.order.restart_s)
        if code not in {UPDATING, UPDATING_ONCE}:
            return False
        flag = os.path.join(self.order.cwd, UPDATE_FINISHED)
        end = time.monotonic() + self.order.update_s
        while not os.path.lexists(flag) and time.monotonic() < end:
            if not self._pause(_LOOK_S):
                return False
        with contextlib.suppress(OSError):
            os.unlink(flag)
        return True

    def _pause(self, seconds: float) -> bool:
        """False when somebody wants the end meanwhile."""
        end = time.monotonic() + seconds
        while not self.stops and (left := end - time.monotonic()) > 0:
            self._turn(left)
        return not self.stops

    def _turn(self, timeout_s: float | None) -> None:
        """Wait for output, a signal or a child's end, and take what came."""
        for key, _ in self.selector.select(timeout_s):
            try:
                chunk = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if key.fd == self.wake:
                continue
            if chunk:
                self._write(chunk)
            else:
                self.selector.unregister(key.fd)
                os.close(key.fd)
        self._reap()

    def _reap(self) -> bool:
        """Take the exit codes of what has ended; whether there are children left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.runner and self.code is None:
                self._drain()
                self.code = os.waitstatus_to_exitcode(status)

    def _drain(self) -> None:
        """What the runner said last; its children may hold the pipe open for ever."""
        for key in list(self.selector.get_map().values()):
            if key.fd == self.wake:
                continue
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(key.fd, 65536):
                    self._write(chunk)
                    if self.left <= 0:
                        break

    def _write(self, chunk: bytes) -> None:
        if self.left <= 0:
            return
        kept = chunk[: self.left]
        self.left -= len(kept)
        with contextlib.suppress(OSError):  # a full disk must not end the job
            os.write(self.log, kept)
            if self.left <= 0:
                os.write(self.log, _DROPPED)

    def end_all(self) -> int:
        """SIGKILL to all that the runner left, until nothing is left; how many would not go."""
        deadline = time.monotonic() + self.order.reap_s
        while self._reap():
            found = _descendants(os.getpid())
            # Stopped first: what forks faster than it is killed can't while it stands still.
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid, started in found:
                    _send(pid, started, number)
            if time.monotonic() > deadline:
                return len(found)
            time.sleep(0.01)
        return 0


def _send(pid: int, started: int, number: int) -> None:
    """A signal to this very process, and not to a later one with its number."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if identity(pid)["started"] == started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _descendants(root: int) -> list[tuple[int, int]]:
    """All below a process: their numbers and when they started."""
    parents: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            parents.setdefault(int(fields[1]), []).append((int(name), int(fields[19])))
    found, waiting = [], [root]
    while waiting:
        below = parents.pop(waiting.pop(), [])
        found += below
        waiting += [pid for pid, _ in below]
    return found


def _write_whole(path: str, value: object) -> None:
    temporary = f"{path}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _say(value: object) -> None:
    with contextlib.suppress(OSError):  # the agent may be gone; the runner is not
        os.write(1, json.dumps(value).encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _be_no_dearer_than_others() -> None:
    """A service's protection from the kernel's OOM killer is not for jobs."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < 0:
            file.seek(0)
            file.write("0")


def main(folder: str) -> int:
    """Keep the runner of FOLDER to its end."""
    os.setsid()
    os.closerange(3, 65536)
    raw = sys.stdin.buffer.read(_MOST_ORDER)
    try:
        order = Order(**json.loads(raw))
    except (ValueError, TypeError):
        return 1  # the agent died before it had said all
    del raw
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _be_no_dearer_than_others()
    try:
        keeper = Keeper(folder, order)
        _write_whole(os.path.join(folder, "keeper.json"), identity(os.getpid()))
        keeper.start()
    except (OSError, subprocess.SubprocessError) as error:
        _say({"error": str(error)})
        return 1
    _say({"pid": keeper.runner})
    code = keeper.keep()
    left = keeper.end_all()
    with contextlib.suppress(OSError):
        _write_whole(os.path.join(folder, "exit.json"), {"code": code, "left": left})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
