"""A container engine whose state is files, so that it outlives the processes that use it.

What a container does happens while somebody waits for it, or in `run_all`: "meanwhile".
"""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle, Mount, User
from smidr_ci.errors import EngineError
from smidr_ci.files import write_atomic
from tests.fakes.runtime import FakeContainer

__all__ = ["DiskRuntime"]

_PAUSE_S = 0.01


class DiskRuntime:
    """A `ContainerRuntime`; `step` is called before each thing that the engine is asked to do."""

    def __init__(
        self,
        folder: Path,
        program: Callable[[FakeContainer], int],
        step: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder = folder
        self._program = program
        self._step = step
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, spec: ContainerSpec) -> Handle:
        """Create, then start; between the two the process may die."""
        self._step()
        if spec.role == "build" and self.find(spec.build_id) is not None:
            raise EngineError(f"a container named smidr-build-{spec.build_id} is left over")
        container_id = uuid.uuid4().hex
        self._write(container_id, spec=_plain(spec), state="created", signals=[], code=None)
        self._step()
        self._change(container_id, state="running")
        return Handle(spec.build_id, container_id, role=spec.role)

    def find(self, build_id: str) -> Handle | None:
        """The build's container, running or ended."""
        found = (h for h in self.list_builds() if h.build_id == build_id and h.role == "build")
        return next(found, None)

    def list_builds(self) -> list[Handle]:
        """All containers."""
        self._step()
        return [
            Handle(
                raw["spec"]["build_id"],
                container_id,
                raw["state"] == "running",
                raw["spec"]["role"],
                has_started=raw["state"] != "created",
            )
            for container_id, raw in self._all()
        ]

    def wait(self, handle: Handle, timeout_s: float) -> Exit | None:
        """Run the container's program, if nobody has, and say how it ended."""
        self._step()
        deadline = time.monotonic() + timeout_s
        while True:
            raw = self._read(handle.container_id)
            if raw is None:
                raise EngineError(f"the container of {handle.build_id} is gone")
            if raw["state"] == "running":
                self._run(handle.container_id, raw)
            elif raw["state"] == "ended":
                return Exit(raw["code"], oom_killed=False)
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE_S)

    def interrupt(self, handle: Handle) -> None:
        """Deliver SIGTERM."""
        self._deliver(handle, signal.SIGTERM)

    def kill(self, handle: Handle) -> None:
        """Deliver SIGKILL."""
        self._deliver(handle, signal.SIGKILL)

    def remove(self, handle: Handle) -> None:
        """Remove the container."""
        self._step()
        (self._folder / handle.container_id).unlink(missing_ok=True)

    def run_all(self) -> None:
        """Run what was started to its end, as happens while no process looks."""
        for container_id, raw in self._all():
            if raw["state"] == "running":
                self._run(container_id, raw)

    def _run(self, container_id: str, raw: dict[str, Any]) -> None:
        container = FakeContainer(_spec(raw["spec"]), container_id)
        for name in raw["signals"]:
            container.deliver(signal.Signals[name])
        code = self._program(container)
        code = 137 if container.killed.is_set() else code
        self._change(container_id, state="ended", code=code)

    def _deliver(self, handle: Handle, number: signal.Signals) -> None:
        self._step()
        raw = self._read(handle.container_id)
        if raw is not None and raw["state"] == "running":
            self._change(handle.container_id, signals=[*raw["signals"], number.name])

    def _all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted(self._folder.iterdir()):
            raw = None if path.name.startswith(".") else self._read(path.name)
            if raw is not None:
                yield path.name, raw

    def _change(self, container_id: str, **changes: object) -> None:
        raw = self._read(container_id)
        if raw is not None:
            self._write(container_id, **{**raw, **changes})

    def _read(self, container_id: str) -> dict[str, Any] | None:
        try:
            raw: dict[str, Any] = json.loads((self._folder / container_id).read_text())
        except FileNotFoundError:
            return None
        return raw

    def _write(self, container_id: str, **raw: object) -> None:
        write_atomic(self._folder / container_id, json.dumps(raw))


def _plain(spec: ContainerSpec) -> dict[str, Any]:
    mounts = [[str(m.source), str(m.target), m.writable] for m in spec.mounts]
    return {"build_id": spec.build_id, "role": spec.role, "mounts": mounts}


def _spec(raw: dict[str, Any]) -> ContainerSpec:
    mounts = tuple(
        Mount(Path(source), PurePosixPath(target), writable)
        for source, target, writable in raw["mounts"]
    )
    spec = ContainerSpec(raw["build_id"], "image", (), User(1, 1), role=raw["role"])
    return replace(spec, mounts=mounts)
