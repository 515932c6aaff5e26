"""`ContainerRuntime` over Docker Engine's API, which Podman speaks too."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.containers.accounts import (
    Accounts,
    account_archive,
    first_file,
    kept_accounts,
    with_group,
    with_passwd,
)
from smidr_ci.containers.body import (
    BUILD_LABEL,
    OWNER_LABEL,
    ROLE_LABEL,
    check_spec,
    container_name,
    create_body,
)
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle
from smidr_ci.containers.terminal import Streams, attach
from smidr_ci.engine import Engine, EngineRefusalError, EngineUnreachableError
from smidr_ci.errors import EngineError

__all__ = ["DockerRuntime"]

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.5
_REMOVAL_S: Final = 30.0


class DockerRuntime:
    """One engine's containers; with `owner`, such as a home's path, only those of this owner.

    While the engine is away, `wait` answers None for up to `reconnect_s`, then raises. A container
    that outlived the engine's restart (`live-restore`) is waited for as before; one that ended
    with it has its exit code in the engine's records. `image_accounts` is a directory that
    remembers what images have in /etc/passwd: each look there costs the engine a mount.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        engine: Engine | None = None,
        owner: str = "",
        clock: Clock | None = None,
        reconnect_s: float = 120.0,
        image_accounts: Path | None = None,
    ) -> None:
        self.engine = engine or Engine(url)
        self._owner = owner
        self._clock = clock or SystemClock()
        self._reconnect_s = reconnect_s
        self._image_accounts = image_accounts
        self._lost_lock = threading.Lock()
        self._lost_since: float | None = None

    def start(self, spec: ContainerSpec) -> Handle:
        """Create and start a detached container; raises `EngineError`, leaving nothing behind."""
        with self._created(spec) as container_id:
            self._start(spec, container_id)
        return Handle(spec.build_id, container_id, role=spec.role)

    def run_interactive(self, spec: ContainerSpec, streams: Streams | None = None) -> int:
        """Run a container on this terminal (or on pipes) to its end; its main process's exit code.

        The container is removed in any case. Raises `EngineError`.
        """
        streams = streams or Streams()
        with self._created(spec, streams) as container_id:
            handle = Handle(spec.build_id, container_id, role=spec.role)
            try:
                with attach(self.engine, container_id, streams) as session:
                    self._start(spec, container_id)
                    session.carry()
                return self._exit_code(handle)
            finally:
                self.remove(handle)

    def _exit_code(self, handle: Handle) -> int:
        while (ended := self.wait(handle, 3600.0)) is None:
            pass
        return ended.code

    def _owned(self, spec: ContainerSpec) -> ContainerSpec:
        if not self._owner:
            return spec
        return replace(spec, labels={**spec.labels, OWNER_LABEL: self._owner})

    def find(self, build_id: str) -> Handle | None:
        """The build's container, running or ended, by its label."""
        found = self._list([f"{BUILD_LABEL}={build_id}", f"{ROLE_LABEL}=build"])
        return found[0] if found else None

    def list_builds(self) -> list[Handle]:
        """All containers that carry our label, running or ended, of any role."""
        return self._list([BUILD_LABEL])

    def _list(self, labels: list[str]) -> list[Handle]:
        labels = [*labels, f"{OWNER_LABEL}={self._owner}"] if self._owner else labels
        with self.engine.calling("list containers"):
            answer = self.engine.api.containers(all=True, filters={"label": labels})
        return [_handle(entry) for entry in answer]

    def wait(self, handle: Handle, timeout_s: float) -> Exit | None:
        """Wait for the end; None when it still runs (or the engine is away) after `timeout_s`."""
        deadline = self._clock.monotonic() + timeout_s
        while True:
            ended = self._look(handle)
            left = deadline - self._clock.monotonic()
            if ended is not None or left <= 0:
                return ended
            if self._lost_since is None:
                self._block(handle, left)
            else:
                self._clock.sleep(min(_PAUSE_S, left))

    def _look(self, handle: Handle) -> Exit | None:
        """How it ended; None while it runs or while nobody can tell."""
        try:
            state = self._state(handle)
        except EngineUnreachableError:
            self._note_loss()
            return None
        with self._lost_lock:
            self._lost_since = None
        if state.get("Running") or state.get("Restarting"):
            return None
        if state.get("Status") == "created":
            raise EngineError(
                f"the container of {handle.build_id} was created but never started",
                hint="smidr was interrupted at that moment; start the build again.",
            )
        return Exit(int(state.get("ExitCode", 255)), bool(state.get("OOMKilled")))

    def _note_loss(self) -> None:
        """Raise the current exception once the engine has been away too long."""
        now = self._clock.monotonic()
        with self._lost_lock:
            since = self._lost_since = self._lost_since if self._lost_since is not None else now
        if now - since >= self._reconnect_s:
            raise EngineUnreachableError(
                f"the container engine at {self.engine.url} has not answered for "
                f"{now - since:.0f} s",
                hint="See `journalctl -u docker`; the build may still run inside its container.",
            )

    def _state(self, handle: Handle) -> Mapping[str, Any]:
        try:
            with self.engine.calling(f"look at the container of {handle.build_id}"):
                state: Mapping[str, Any] = self.engine.api.inspect_container(handle.container_id)[
                    "State"
                ]
                return state
        except EngineRefusalError as error:
            if error.status == 404:
                raise EngineError(
                    f"the container of {handle.build_id} is gone",
                    hint="Somebody removed it, by `docker rm` or `docker system prune`.",
                ) from error
            raise

    def _block(self, handle: Handle, seconds: float) -> None:
        # A time-out and a lost connection look alike here; the next look tells.
        began = self._clock.monotonic()
        try:
            with self.engine.calling(f"wait for the container of {handle.build_id}"):
                self.engine.api.wait(handle.container_id, timeout=max(1, math.ceil(seconds)))
        except EngineError:
            if self._clock.monotonic() - began < min(seconds, _PAUSE_S):
                self._clock.sleep(min(seconds, _PAUSE_S))

    def interrupt(self, handle: Handle) -> None:
        """Send SIGTERM to the main process: the driver's clean stop."""
        self._signal(handle, "SIGTERM")

    def kill(self, handle: Handle) -> None:
        """Send SIGKILL."""
        self._signal(handle, "SIGKILL")

    def _signal(self, handle: Handle, name: str) -> None:
        try:
            with self.engine.calling(f"send {name} to the container of {handle.build_id}"):
                self.engine.api.kill(handle.container_id, name)
        except EngineRefusalError as error:
            # Docker refuses to signal what does not run with 409, Podman with 500 and these words.
            if error.status not in {404, 409} and "can only kill running" not in error.answer:
                raise

    def remove(self, handle: Handle) -> None:
        """Remove the container, running or not; back when it is gone."""
        deadline = self._clock.monotonic() + _REMOVAL_S
        if self.engine.facts.is_podman:
            # Its forced removal asks politely first, and waits ten seconds.
            self.kill(handle)
        while True:
            try:
                with _Ignoring(404), self.engine.calling(f"remove container {handle.build_id}"):
                    self.engine.api.remove_container(handle.container_id, v=True, force=True)
            except EngineRefusalError as error:
                # 409: "removal of container is already in progress"
                if error.status != 409 or self._clock.monotonic() > deadline:
                    raise
                self._clock.sleep(_PAUSE_S)
            else:
                return

    def output_tail(self, handle: Handle, lines: int = 50) -> str:
        """The last lines that the main process wrote; empty when it is gone."""
        with _Ignoring(404), self.engine.calling(f"read the output of {handle.build_id}"):
            raw: bytes = self.engine.api.logs(handle.container_id, tail=lines)
            return raw.decode(errors="replace")
        return ""

    @contextlib.contextmanager
    def _created(self, spec: ContainerSpec, streams: Streams | None = None) -> Iterator[str]:
        """A container with its account entries; removed when anything then goes wrong."""
        check_spec(spec, self.engine.facts, self.engine.url)
        container_id = self._create(spec, streams)
        try:
            if not spec.read_only_root:  # the engine then refuses to write there
                self._add_accounts(spec, container_id)
            yield container_id
        except BaseException:
            with contextlib.suppress(EngineError):
                self.remove(Handle(spec.build_id, container_id))
            raise

    def _create(self, spec: ContainerSpec, streams: Streams | None) -> str:
        name = container_name(spec, uuid.uuid4().hex[:8])
        body = create_body(self._owned(spec), self.engine.facts)
        if streams:
            body |= {"OpenStdin": True, "StdinOnce": True, "Tty": streams.is_terminal}
        try:
            with self.engine.calling(f"create container {name}"):
                create: Any = self.engine.api.create_container_from_config  # it has no types
                answer = create(body, name)
        except EngineRefusalError as error:
            raise _explained(error, name, spec) from error
        for warning in answer.get("Warnings") or ():
            _log.warning("container engine on %s: %s", name, warning)
        return str(answer["Id"])

    def _add_accounts(self, spec: ContainerSpec, container_id: str) -> None:
        found = kept_accounts(
            self._image_accounts, spec.image, lambda: self._read_accounts(container_id)
        )
        passwd, group = with_passwd(found.passwd, spec.user), with_group(found.group, spec.user)
        home = None if _is_mounted(spec, spec.user.home) else spec.user.home
        with self.engine.calling(f"write /etc/passwd in the container of {spec.build_id}"):
            archive = account_archive(passwd, group, spec.user, home)
            self.engine.api.put_archive(container_id, "/", archive)

    def _read_accounts(self, container_id: str) -> Accounts:
        return Accounts(
            self._read(container_id, "/etc/passwd"), self._read(container_id, "/etc/group")
        )

    def _read(self, container_id: str, path: str) -> str:
        """A small text file of a container, through one symlink; empty when there is none."""
        with _Ignoring(404), self.engine.calling(f"read {path} in a container"):
            stream, info = self.engine.api.get_archive(container_id, path)
            if target := info.get("linkTarget"):
                stream.close()
                stream, _ = self.engine.api.get_archive(container_id, target)
            with contextlib.closing(stream):
                return first_file(stream)
        return ""

    def _start(self, spec: ContainerSpec, container_id: str) -> None:
        try:
            with self.engine.calling(f"start the container of {spec.build_id}"):
                self.engine.api.start(container_id)
        except EngineRefusalError as error:
            raise _explained(error, container_name(spec, ""), spec) from error


def _handle(entry: Mapping[str, Any]) -> Handle:
    labels = entry.get("Labels") or {}
    return Handle(
        build_id=str(labels.get(BUILD_LABEL, "")),
        container_id=str(entry["Id"]),
        is_running=entry.get("State") in {"running", "paused", "restarting"},
        role=str(labels.get(ROLE_LABEL, "build")),
        has_started=entry.get("State") != "created",
    )


def _is_mounted(spec: ContainerSpec, path: PurePosixPath) -> bool:
    return any(path.is_relative_to(mount.target) for mount in spec.mounts)


class _Ignoring:
    """Swallows the engine's refusals of these HTTP statuses."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = statuses

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """Say whether to swallow it."""
        return isinstance(error, EngineRefusalError) and error.status in self._statuses


def _explained(error: EngineRefusalError, name: str, spec: ContainerSpec) -> EngineError:
    hint = ""
    if error.status == 409 or "already in use" in error.answer:
        hint = (
            f"A container of this name is left over. If build {spec.build_id} does not run, "
            f"remove it: docker rm -f {name}"
        )
    elif "no such image" in error.answer.lower():
        hint = "The image was removed since smidr looked; run the build again."
    return EngineError(error.message, hint=hint)
