"""The worker's event loop: commands in, tasks started and watched, events and exit codes out."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bb
import bb.build
import bb.cookerdata
import bb.event
import bb.msg
import bb.utils

from wheelworker.protocol import (
    CommandBuffer,
    FrameBuffer,
    ProtocolError,
    exit_frame,
)
from wheelworker.task import Setup, run_task

__all__ = ["Worker"]

LOGGER = logging.getLogger("BitBake")
CHUNK_BYTES = 1 << 18
BACKLOG_BYTES = 1 << 20
"""More than this unread by the run queue, and tasks wait with their events."""
GRACE_S = 5.0
"""Time between SIGTERM and SIGKILL for tasks that must end."""
GROUP_POLL_S = 0.1
"""How often to look whether processes that a task left behind are gone; nothing tells of them."""


@dataclass
class Job:
    """A task that runs; its process leads a process group."""

    pid: int
    task_id: str
    pipe: int
    frames: FrameBuffer = field(default_factory=FrameBuffer)
    is_watched: bool = False
    has_ended: bool = False
    """The task's end of the pipe is closed."""


class Worker:
    """Runs tasks for the run queue behind two pipes until it is told to quit, or the pipes end."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands = commands
        self._replies = replies
        self._received = CommandBuffer()
        self._backlog = bytearray()
        self._jobs: dict[int, Job] = {}
        self._left_behind: set[int] = set()
        self._setup = Setup(configuration=None, builder=None)
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._signals: set[int] = set()
        self._is_closing = False
        self._kill_at: float | None = None
        self._exit_code = 0

    def serve(self) -> int:
        """Work until all is done; returns the exit code."""
        self._listen()
        while self._jobs or self._left_behind or self._backlog or not self._is_closing:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._heed_signals()
            self._reap()
            self._escalate()
            self._balance()
        return self._exit_code

    def send(self, frame: bytes) -> None:
        """Queue a frame for the run queue; never blocks, so neither side can wait for the other."""
        self._backlog += frame

    # Signals arrive as bytes on a socket, so that one select() sees everything that happens.

    def _listen(self) -> None:
        for fd in (self._commands, self._replies):
            os.set_blocking(fd, False)
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.add(number))
        # Ctrl-C is the run queue's to answer: it lets running tasks end, or says `finishnow`.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(self._commands, selectors.EVENT_READ, self._read_commands)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._wake)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass

    def _heed_signals(self) -> None:
        while self._signals:
            name = signal.Signals(self._signals.pop()).name
            LOGGER.warning("Worker received %s, shutting down...", name)
            self._close(exit_code=1)

    def _patience(self) -> float | None:
        if self._kill_at is None:
            return None
        left = max(0.0, self._kill_at - time.monotonic())
        return min(left, GROUP_POLL_S) if self._left_behind else left

    # Commands

    def _read_commands(self) -> None:
        try:
            chunk = os.read(self._commands, CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close(exit_code=1)
            return
        self._received.feed(chunk)
        while not self._is_closing and (command := self._received.next()):
            self._obey(*command)

    def _obey(self, name: str, value: Any) -> None:
        commands: dict[str, Callable[[Any], None]] = {
            "cookerconfig": self._configure,
            "extraconfigdata": self._set_extra_variables,
            "workerdata": self._set_info,
            "newtaskhashes": self._set_task_hashes,
            "runtask": self._start_task,
            "finishnow": lambda _: self._stop_tasks(),
            "ping": lambda _: LOGGER.warning("Pong from bitbake-worker!"),
            "quit": lambda _: self._close(exit_code=0),
        }
        if name not in commands:
            raise ProtocolError(f"there is no command {name!r}")
        commands[name](value)

    def _configure(self, configuration: Any) -> None:
        builder = bb.cookerdata.CookerDataBuilder(configuration, worker=True)
        builder.parseBaseConfiguration(worker=True)
        self._setup.configuration = configuration
        self._setup.builder = builder

    def _set_extra_variables(self, variables: dict[str, Any]) -> None:
        self._setup.extra_variables = variables

    def _set_info(self, info: dict[str, Any]) -> None:
        self._setup.info = info
        bb.build.verboseShellLogging = info["build_verbose_shell"]
        bb.build.verboseStdoutLogging = info["build_verbose_stdout"]
        bb.msg.loggerDefaultLogLevel = info["logdefaultlevel"]
        bb.msg.loggerDefaultDomains = info["logdefaultdomain"]
        for data in self._setup.builder.mcdata.values():
            data.setVar("PRSERV_HOST", info["prhost"])
            data.setVar("BB_HASHSERVE", info["hashservaddr"])
            data.setVar("__bbclasstype", "recipe")

    def _set_task_hashes(self, hashes: dict[str, Any]) -> None:
        self._setup.task_hashes = hashes

    # Tasks

    def _start_task(self, order: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_task(order, reader, writer)
        os.close(writer)
        os.set_blocking(reader, False)
        self._jobs[pid] = Job(pid, order["task"], reader)

    def _become_task(self, order: dict[str, Any], reader: int, writer: int) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for fd in (
                reader,
                self._commands,
                self._replies,
                *(job.pipe for job in self._jobs.values()),
            ):
                os.close(fd)
            code = run_task(self._setup, order, writer)
        finally:
            # Not even SystemExit may unwind into the loop that this process is a copy of.
            os._exit(code)

    def _read_events(self, job: Job) -> bool:
        """Pass on what the task has sent; says whether there may be more."""
        try:
            chunk = os.read(job.pipe, CHUNK_BYTES)
        except BlockingIOError:
            return False
        self.send(job.frames.feed(chunk))
        if not chunk:
            job.has_ended = True
            self._unwatch(job)
        return bool(chunk)

    def _reap(self) -> None:
        for job in list(self._jobs.values()):
            pid, status = os.waitpid(job.pid, os.WNOHANG)
            if pid == 0:
                continue
            while self._read_events(job):
                pass
            self._unwatch(job)
            os.close(job.pipe)
            del self._jobs[pid]
            if self._kill_at is not None:
                self._left_behind.add(pid)
            code = os.waitstatus_to_exitcode(status)
            self.send(exit_frame(job.task_id, code if code >= 0 else 128 - code))

    def _stop_tasks(self) -> None:
        if not self._jobs:
            return
        LOGGER.info("Sending SIGTERM to remaining %s tasks", len(self._jobs))
        self._signal_tasks(signal.SIGTERM)
        if self._kill_at is None:
            self._kill_at = time.monotonic() + GRACE_S

    def _escalate(self) -> None:
        """Kill what is left when the grace is over: tasks, and processes whose task has gone."""
        self._left_behind = {group for group in self._left_behind if _send(group, 0)}
        if not self._jobs and not self._left_behind:
            self._kill_at = None
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal_tasks(signal.SIGKILL)
            self._kill_at = time.monotonic() + GRACE_S

    def _signal_tasks(self, number: int) -> None:
        for group in self._left_behind:
            _send(group, number)
        for job in self._jobs.values():
            if not _send(job.pid, number):
                # Just forked: it has no group yet. A process that has ended stays until reaped.
                os.kill(job.pid, number)

    # Replies

    def _balance(self) -> None:
        """Listen to tasks while the run queue keeps up; wait for it to read while it does not."""
        self._write_replies()
        may_read = len(self._backlog) < BACKLOG_BYTES
        for job in self._jobs.values():
            if not may_read:
                self._unwatch(job)
            elif not job.is_watched and not job.has_ended:
                self._selector.register(job.pipe, selectors.EVENT_READ, self._reader_of(job))
                job.is_watched = True
        is_waiting = self._replies in self._selector.get_map()
        if self._backlog and not is_waiting:
            self._selector.register(self._replies, selectors.EVENT_WRITE, self._write_replies)
        elif is_waiting and not self._backlog:
            self._selector.unregister(self._replies)

    def _reader_of(self, job: Job) -> Callable[[], bool]:
        return lambda: job.is_watched and self._read_events(job)

    def _unwatch(self, job: Job) -> None:
        if job.is_watched:
            self._selector.unregister(job.pipe)
            job.is_watched = False

    def _write_replies(self) -> None:
        try:
            while self._backlog:
                del self._backlog[: os.write(self._replies, self._backlog[:CHUNK_BYTES])]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._backlog.clear()
            self._close(exit_code=1)

    def _close(self, exit_code: int) -> None:
        """Take no more commands, end what runs, then leave."""
        if not self._is_closing:
            self._is_closing = True
            self._exit_code = exit_code
            self._selector.unregister(self._commands)
        self._stop_tasks()


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group (0 only looks); says whether there is such a group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
