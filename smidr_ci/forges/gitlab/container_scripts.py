"""Lines of a job's script run in a container of the build's image; they outlive this process."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.logbook import CHUNK_BYTES, LogReader
from smidr_ci.builds.mounts import container_spec
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.stranger import image_guard, settings_for
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import ContainerSpec, Handle, Mount
from smidr_ci.containers.user import own
from smidr_ci.errors import CancelledError, FailureKind, SmidrError
from smidr_ci.files import as_host_error, make_marked_dir, open_untrusted, write_atomic
from smidr_ci.forges.gitlab.context import CONTAINER_DIRECTORY, FILE_DIRECTORY
from smidr_ci.forges.gitlab.durations import duration_text
from smidr_ci.forges.gitlab.ports import JobLog, ScriptEnd, ScriptRun
from smidr_ci.forges.gitlab.shelltext import LAUNCHER, shell_text

__all__ = ["ROLE", "ContainerScripts"]

log = logging.getLogger(__name__)

ROLE: Final = "lines"
"""How the role of such containers begins, see `containers.runtime`."""
_IS_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LOOK_S: Final = 1.0
_GRACE_S: Final = 30.0
"""Between SIGTERM and SIGKILL after a cancel."""
_LINES: Final = PurePosixPath("/smidr/lines")
_OUT: Final = PurePosixPath("/smidr/out")
_FILES: Final = PurePosixPath(FILE_DIRECTORY)
_EXPORTS: Final = "gitlab_runner_env"
"""The file that GITLAB_ENV names."""
_MAX_EXPORTS: Final = 1 << 20


@dataclass(frozen=True)
class ContainerScripts:
    """Implements `ports.Scripts`.

    The image is that of the build, and so are user, network and limits. No cache and no layer is
    mounted, only the checkout, which is the job's own.
    """

    host: Callable[[], Host]
    """The host with its newest settings."""

    def run(
        self, script: ScriptRun, cancel: CancelToken, leave: threading.Event, log: JobLog
    ) -> ScriptEnd | None:
        """See `ports.Scripts`."""
        host = self.host()
        run = _Run(host, script, cancel, leave, log)
        handle = run.find()
        if handle is None:
            cancel.raise_if_cancelled()
            handle = run.start()
        return run.follow(handle)

    def forget(self, job_id: str) -> None:
        """See `ports.Scripts`."""
        self._remove(lambda handle: handle.build_id == job_id)

    def sweep(self, jobs: Path) -> None:
        """Remove what is left of jobs that have no folder in this directory any more."""
        self._remove(lambda handle: not (jobs / handle.build_id).exists())

    def exports(self, folder: Path) -> Mapping[str, str]:
        """See `ports.Scripts`."""
        path = folder.joinpath("lines", "files", _EXPORTS)
        try:
            with open_untrusted(path) as file:
                text = file.read(_MAX_EXPORTS)
        except OSError:
            return {}
        pairs = (line.partition("=") for line in text.decode(errors="replace").split("\n"))
        return {name: value for name, sign, value in pairs if sign and _IS_NAME.fullmatch(name)}

    def _remove(self, is_unwanted: Callable[[Handle], bool]) -> None:
        runtime = self.host().runtime
        try:
            for handle in runtime.list_builds():
                if handle.role.startswith(f"{ROLE}-") and is_unwanted(handle):
                    runtime.remove(handle)
        except SmidrError as error:
            log.warning("can't remove a container of a job: %s", error)


@dataclass(frozen=True)
class _Run:
    """One part of one job's script."""

    host: Host
    script: ScriptRun
    cancel: CancelToken
    leave: threading.Event
    log: JobLog

    @property
    def _role(self) -> str:
        return f"{ROLE}-{self.script.name}"

    def _path(self, *parts: str) -> Path:
        return self.script.folder.joinpath("lines", *parts)

    @property
    def _output(self) -> Path:
        return self._path("out", f"{self.script.name}.log")

    @property
    def _state(self) -> Path:
        return self._path("out", f"{self.script.name}.state")

    def find(self) -> Handle | None:
        """The container of an earlier call for the same lines."""
        for handle in self.host.runtime.list_builds():
            if (handle.build_id, handle.role) == (self.script.job_id, self._role):
                if handle.has_started:
                    return handle
                self.host.runtime.remove(handle)
        return None

    def start(self) -> Handle:
        """Write everything and start the container."""
        request = request_for(self.host, self.script.order)
        image = self.host.images.ensure(
            with_provider_layers(request.project.config).container,
            report=self.log,
            cancel=self.cancel,
            guard=None if request.is_trusted else image_guard(self.host.agent),
        )
        self.cancel.raise_if_cancelled()
        try:
            mounts = self._write()
        except OSError as error:
            raise as_host_error(error, "can't prepare the script", self._path()) from error
        return self.host.runtime.start(self._spec(request, image.id, mounts))

    def _spec(self, request: BuildRequest, image: str, mounts: tuple[Mount, ...]) -> ContainerSpec:
        spec = container_spec(
            self.script.job_id,
            with_provider_layers(request.project.config),
            settings_for(self.host.agent, request.trust),
            image=image,
            user=self.host.user,
            mounts=mounts,
            environment={},
        )
        name = self.script.name
        return replace(
            spec,
            role=self._role,
            command=("sh", str(_LINES / "start"), str(_LINES / name), str(_OUT / f"{name}.log")),
            workdir=PurePosixPath(CONTAINER_DIRECTORY),
        )

    def _write(self) -> tuple[Mount, ...]:
        make_marked_dir(self._path(), mode=0o700)
        shell, out, files = (self._path(part) for part in ("shell", "out", "files"))
        for folder in (shell, out, files):
            folder.mkdir(mode=0o700, exist_ok=True)
            own(folder, self.host.user)
        for left in (self._output, self._state):
            left.unlink(missing_ok=True)
        self._put(shell / "start", LAUNCHER.encode())
        self._put(shell / self.script.name, self._text().encode())
        for key, content in self.script.files.items():
            self._put(files / key, content)
        return (
            Mount(self.script.directory, PurePosixPath(CONTAINER_DIRECTORY), writable=True),
            Mount(files, _FILES, writable=True),
            Mount(shell, _LINES),
            Mount(out, _OUT, writable=True),
        )

    def _text(self) -> str:
        name = self.script.name
        return shell_text(
            self.script.lines,
            {**self.script.environment, "GITLAB_ENV": str(_FILES / _EXPORTS)},
            directory=str(CONTAINER_DIRECTORY),
            load=str(_OUT / "before.state") if name == "after" else "",
            save=str(_OUT / f"{name}.state"),
        )

    def _put(self, path: Path, content: bytes) -> None:
        # Earlier lines could write beside it: the new file takes the place of whatever is there.
        write_atomic(path, content, mode=0o600)
        if os.geteuid() == 0:
            user = self.host.user
            os.chown(path, user.uid, user.gid, follow_symlinks=False)

    def follow(self, handle: Handle) -> ScriptEnd | None:
        """Show the output until the container has ended, and how it did."""
        runtime, clock = self.host.runtime, self.host.clock
        limit = self.script.timeout_s
        until = clock.monotonic() + limit if limit is not None else None
        stopping: float | None = None
        offset = self.script.shown_bytes
        with LogReader(self._output) as reader:
            while True:
                ended = runtime.wait(handle, _LOOK_S)
                offset = self._show(reader, offset)
                if ended is not None:
                    break
                if self.leave.is_set():
                    return None
                now = clock.monotonic()
                is_late = until is not None and now >= until
                if (self.cancel.is_cancelled or is_late) and stopping is None:
                    stopping = now
                    runtime.interrupt(handle)
                is_hard = self.cancel.level is CancelLevel.KILL
                if stopping is not None and (is_hard or now - stopping >= _GRACE_S):
                    runtime.kill(handle)
        if self.leave.is_set():
            return None  # the next call finds the ended container, and what it has to say
        self._raise_if_stopped(is_late=stopping is not None)
        if ended.oom_killed:
            raise SmidrError(
                "a command of the script needed more memory than a build may use",
                hint="Raise container.memory in the config, or the operator's limits.",
                kind=FailureKind.OUT_OF_MEMORY,
            )
        return ScriptEnd(ended.code, has_finished=self._state.is_file())

    def _raise_if_stopped(self, *, is_late: bool) -> None:
        if self.cancel.is_cancelled:
            raise CancelledError(self.cancel.reason, kind=self.cancel.kind)
        if is_late:
            limit = duration_text(self.script.timeout_s or 0.0)
            raise CancelledError(f"it took longer than {limit}", kind=FailureKind.TIMEOUT)

    def _show(self, reader: LogReader, offset: int) -> int:
        while chunk := reader.read(offset, CHUNK_BYTES):
            offset += len(chunk)
            self.log.output(chunk, **{self.script.mark: offset})
        if reader.was_replaced(offset):
            reader.close()
            return 0
        return offset
