"""A container engine in this process: a "container" is a Python callable or a real subprocess.

Implements `ContainerRuntime`. Several `FakeRuntime`s may share one `FakeEngine`, as several
processes share an engine: what one starts, another finds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle
from smidr_ci.errors import EngineError

__all__ = ["FakeContainer", "FakeEngine", "FakeRuntime", "Program", "run_command"]


@dataclass
class FakeContainer:
    """One "container": what it was asked to be, and what happens to it."""

    spec: ContainerSpec
    container_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    interrupted: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set by the first SIGTERM or SIGKILL: what a program that blocks waits for."""
    ended: threading.Event = field(default_factory=threading.Event)
    exit: Exit | None = None
    oom_killed: bool = False
    """A program sets it to say that the kernel killed something for memory."""
    signals: list[str] = field(default_factory=list)
    on_signal: Callable[[int], None] | None = None

    def host_path(self, path: str | PurePosixPath) -> Path:
        """Where a container path lies on the host, by the innermost mount that holds it."""
        inside = PurePosixPath(path)
        mounts = sorted(self.spec.mounts, key=lambda mount: -len(mount.target.parts))
        for mount in mounts:
            if inside.is_relative_to(mount.target):
                return mount.source / inside.relative_to(mount.target)
        raise FileNotFoundError(f"nothing is mounted at {inside}")

    def with_host_paths(self, text: str) -> str:
        """The text with every mount point replaced by its host directory."""
        for mount in sorted(self.spec.mounts, key=lambda mount: -len(str(mount.target))):
            text = text.replace(str(mount.target), str(mount.source))
        return text

    def deliver(self, number: signal.Signals) -> None:
        """A signal to the main process."""
        if self.ended.is_set():
            return
        self.signals.append(number.name)
        (self.killed if number == signal.SIGKILL else self.interrupted).set()
        self.stopped.set()
        if self.on_signal:
            self.on_signal(number)

    def run(self, program: Program) -> None:
        """Run to the end; a killed one ends with 137 whatever it returns, a crash with 70."""
        code = 70
        try:
            code = program(self)
        finally:
            code = 137 if self.killed.is_set() else code
            self.exit = Exit(code, self.oom_killed)
            self.ended.set()


Program = Callable[[FakeContainer], int]
"""The main process: gets its container, returns the exit code.

One that blocks must wait on `container.stopped`, `interrupted` or `killed`.
"""


def run_command(container: FakeContainer) -> int:
    """The program that runs the spec's own command on the host, container paths replaced."""
    spec = container.spec
    words = [container.with_host_paths(word) for word in (*spec.entrypoint, *spec.command)]
    environment = {name: container.with_host_paths(v) for name, v in spec.environment.items()}
    process = subprocess.Popen(
        words,
        cwd=container.host_path(spec.workdir),
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    container.on_signal = lambda number: os.killpg(process.pid, number)
    if container.killed.is_set() or container.interrupted.is_set():
        container.on_signal(signal.SIGKILL if container.killed.is_set() else signal.SIGTERM)
    code = process.wait()
    return code if code >= 0 else 128 - code


@dataclass
class FakeEngine:
    """The containers that exist, for all runtimes that share this engine."""

    containers: dict[str, FakeContainer] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_reachable: bool = True
    refusal: str = ""
    """When set, `start` raises `EngineError` with this text."""


class FakeRuntime:
    """A `ContainerRuntime`; `started` and `removed` tell a test what was asked of it."""

    def __init__(self, program: Program = run_command, engine: FakeEngine | None = None) -> None:
        self.program = program
        self.engine = engine or FakeEngine()
        self.started: list[ContainerSpec] = []
        self.removed: list[str] = []

    def start(self, spec: ContainerSpec) -> Handle:
        """Start the program in a thread."""
        self._check()
        if self.engine.refusal:
            raise EngineError(self.engine.refusal)
        for mount in spec.mounts:
            if not mount.source.exists():
                raise EngineError(f"can't mount {mount.source} at {mount.target}: it is missing")
        container = FakeContainer(spec)
        with self.engine.lock:
            names = {(c.spec.role, c.spec.build_id) for c in self.engine.containers.values()}
            if ("build", spec.build_id) in names and spec.role == "build":
                raise EngineError(f"a container named smidr-build-{spec.build_id} is left over")
            self.engine.containers[container.container_id] = container
        self.started.append(spec)
        threading.Thread(target=container.run, args=(self.program,), daemon=True).start()
        return Handle(spec.build_id, container.container_id, role=spec.role)

    def find(self, build_id: str) -> Handle | None:
        """The build's container, running or ended."""
        found = (h for h in self.list_builds() if h.build_id == build_id and h.role == "build")
        return next(found, None)

    def list_builds(self) -> list[Handle]:
        """All containers."""
        self._check()
        with self.engine.lock:
            return [
                Handle(c.spec.build_id, c.container_id, not c.ended.is_set(), c.spec.role)
                for c in self.engine.containers.values()
            ]

    def wait(self, handle: Handle, timeout_s: float) -> Exit | None:
        """Wait for the end; None when it still runs after `timeout_s`."""
        self._check()
        container = self.engine.containers.get(handle.container_id)
        if container is None:
            raise EngineError(f"the container of {handle.build_id} is gone")
        container.ended.wait(timeout_s)
        return container.exit

    def interrupt(self, handle: Handle) -> None:
        """Deliver SIGTERM."""
        self._deliver(handle, signal.SIGTERM)

    def kill(self, handle: Handle) -> None:
        """Deliver SIGKILL."""
        self._deliver(handle, signal.SIGKILL)

    def remove(self, handle: Handle) -> None:
        """Remove the container, killing it first."""
        self._deliver(handle, signal.SIGKILL)
        with self.engine.lock:
            if self.engine.containers.pop(handle.container_id, None):
                self.removed.append(handle.build_id)

    def _deliver(self, handle: Handle, number: signal.Signals) -> None:
        self._check()
        if container := self.engine.containers.get(handle.container_id):
            container.deliver(number)

    def _check(self) -> None:
        if not self.engine.is_reachable:
            raise EngineError("the container engine does not answer")
