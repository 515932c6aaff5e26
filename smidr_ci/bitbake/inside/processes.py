"""Children and their descendants: start, wait for one or all of them, signal, kill.

The driver makes itself the reaper of its descendants, so that BitBake's server and workers, which
outlive the client in sessions of their own, stay its children and can be waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from typing import Mapping, Sequence

from .control import names_in, read_small

__all__ = ["STOP_SIGNALS", "Family"]

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_WATCHED = STOP_SIGNALS | {signal.SIGCHLD}
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class Family:
    """All processes below this one. Signals are taken by `wait` only, never by handlers."""

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        self._ended: dict[int, int] = {}
        self._helpers: set[int] = set()
        _become_reaper()

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: str, output: int
    ) -> int:
        """Start a program in a session of its own; its pid. Raises OSError."""
        child = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=self._unblock,  # noqa: PLW1509 - the driver has one thread
        )
        child.returncode = 0  # it is reaped here; without this, Popen complains when collected
        return child.pid

    def start_helper(self, command: Sequence[str], output: int) -> int:
        """Start a program of the driver's own, which is none of the build's; its pid."""
        pid = self.start(command, os.environ, "/", output)
        self._helpers.add(pid)
        return pid

    def end_helpers(self) -> None:
        """SIGKILL them."""
        for pid in self._helpers & set(descendants(os.getpid())):
            send(pid, signal.SIGKILL)
        self._helpers.clear()

    def _unblock(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def wait(self, seconds: float | None) -> int | None:
        """Sleep until a child ends or a stop is asked for; that signal, or None.

        None also means that the time is over.
        """
        forever = float(2**31)
        info = signal.sigtimedwait(_WATCHED, forever if seconds is None else max(0.0, seconds))
        self._reap()
        return info.si_signo if info and info.si_signo in STOP_SIGNALS else None

    def take_exit(self, pid: int) -> int | None:
        """Exit code of the child if it has ended: 128 + n for signal n."""
        self._reap()
        return self._ended.pop(pid, None)

    def is_alone(self) -> bool:
        """Whether no child but helpers is left."""
        return not self._reap() or bool(self._helpers and not self._builds_own())

    def _builds_own(self) -> list[int]:
        return [pid for pid in descendants(os.getpid()) if pid not in self._helpers]

    def _reap(self) -> bool:
        """Collect who has ended; say whether any child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            signalled = os.WIFSIGNALED(status)
            code = 128 + os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status)
            self._ended[pid] = code

    def kill(self, pid: int) -> bool:
        """SIGKILL one process if it is a descendant; say whether it is."""
        if pid not in descendants(os.getpid()):
            return False
        send(pid, signal.SIGKILL)
        return True

    def end_all(self, seconds: float) -> bool:
        """SIGTERM every descendant, SIGKILL those that stay; False when even that left some."""
        return self._signal_all(signal.SIGTERM, seconds) or self.kill_all(seconds)

    def kill_all(self, seconds: float) -> bool:
        """SIGKILL every descendant until none is left; False when some stay after `seconds`."""
        return self._signal_all(signal.SIGKILL, seconds)

    def _signal_all(self, number: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while not self.is_alone():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for pid in self._builds_own():
                if pid not in told:
                    send(pid, number)
                told.add(pid)
            self.wait(min(left, 0.05))
        return True


def send(pid: int, number: int) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """Pids of all live processes below `root`, by /proc."""
    children: dict[int, list[int]] = {}
    for name in names_in("/proc"):
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    pending = [root]
    while pending:
        for pid in children.get(pending.pop(), []):
            if pid not in found:
                found.add(pid)
                pending.append(pid)
    return sorted(found)


def _parent(name: str) -> int | None:
    stat = read_small(f"/proc/{name}/stat")
    # pid (comm) state ppid ...; comm may hold blanks and parentheses (proc(5))
    fields = stat.rpartition(")")[2].split() if stat else []
    return int(fields[1]) if len(fields) > 1 and fields[0] != "Z" else None


def _become_reaper() -> None:
    # Where it is refused, the container's init reaps, and only our own children are waited for.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
