"""Runners in containers of an image: they see their own directory and a socket of the agent.

The container's root can't be written, and nothing of it outlives the job. The configuration comes
through a FIFO: an engine would write what stands in a container's environment to its disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.clock import Clock
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.config.sections import Container
from smidr_ci.containers.accounts import with_group, with_passwd
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle, Mount, User
from smidr_ci.containers.user import own
from smidr_ci.engine import EngineUnreachableError
from smidr_ci.errors import EngineError, HostError, SmidrError
from smidr_ci.files import as_host_error
from smidr_ci.forges.github.runners.archive import Archive, unpack
from smidr_ci.forges.github.runners.door import agent_socket
from smidr_ci.forges.github.runners.folder import RunnerFolder
from smidr_ci.forges.github.runners.surroundings import job_user, own_tree, runner_environment

__all__ = ["ROLE", "Containers", "runner_spec"]

log = logging.getLogger(__name__)

ROLE: Final = "runner"
"""Of these containers, see `containers.runtime`."""
_PIPE: Final = ".smidr-config"
_SCRIPT: Final = (
    'IFS= read -r ACTIONS_RUNNER_INPUT_JITCONFIG < "$1" && rm -f "$1"'
    ' && export ACTIONS_RUNNER_INPUT_JITCONFIG && exec "$2" run'
)
_LOOK_S: Final = 3.0
_TAKE_S: Final = 60.0
_PAUSE_S: Final = 0.05
_KILL_S: Final = 20.0
_LINES: Final = 200


def runner_spec(host: Host, folder: RunnerFolder, image: str, user: User) -> ContainerSpec:
    """The container of one runner. Its directory has the same path as on the host."""
    settings = host.agent.github.runners
    socket = agent_socket(host)
    pipe, listener = folder.root / _PIPE, folder.root / "bin" / "Runner.Listener"
    same = (
        (folder.root, True),
        (folder.home, True),
        (socket.parent, False),
    )
    return ContainerSpec(
        build_id=folder.path.name,
        image=image,
        command=("/bin/sh", "-c", _SCRIPT, "smidr-runner", str(pipe), str(listener)),
        user=user,
        mounts=(
            *(Mount(path, PurePosixPath(path), writable) for path, writable in same),
            Mount(folder.path / "tmp", PurePosixPath("/tmp"), writable=True),  # noqa: S108 - in there
            Mount(folder.path / "passwd", PurePosixPath("/etc/passwd")),
            Mount(folder.path / "group", PurePosixPath("/etc/group")),
        ),
        environment=runner_environment(folder, user, settings, host.environ, socket),
        workdir=PurePosixPath(folder.root),
        memory_bytes=settings.memory,
        cpus=settings.cpus,
        network=host.agent.engine.network,
        role=ROLE,
        read_only_root=True,
    )


@dataclass
class Containers:
    """Implements `bodies.Body`; `host` has the newest settings."""

    host: Callable[[], Host]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _image: tuple[str, str] = ("", "")
    """Reference and id of what was prepared last."""
    _problem: str = ""

    def prepare(self) -> None:
        """See `bodies.Body`: pull the image."""
        host = self.host()
        reference = host.agent.github.runners.image
        if reference is None:
            return
        with self._lock:
            try:
                found = host.images.ensure(Container(base_image=reference), report=log.info)
            except SmidrError as error:
                self._problem = f": {error.message}"
                raise
            self._image, self._problem = (reference, found.id), ""

    def check(self) -> None:
        """See `bodies.Body`."""
        host = self.host()
        if self._image[0] != host.agent.github.runners.image:
            raise HostError(
                f"the image {host.agent.github.runners.image} is not here yet{self._problem}"
            )
        if not agent_socket(host).exists():
            raise HostError(
                "the agent has no socket for runners' jobs",
                hint="It makes one when it starts: restart it.",
            )

    def start(self, folder: RunnerFolder, archive: Archive, config: str) -> _ContainerLife:
        """See `bodies.Body`."""
        host = self.host()
        settings = host.agent.github.runners
        user = _user_of(folder, settings, host)
        unpack(archive, folder.root)
        pipe = folder.root / _PIPE
        try:
            _make_places(folder, user)
            os.mkfifo(pipe, 0o600)
            own_tree(folder.root, user)
            waiting = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise as_host_error(error, "can't prepare a runner", folder.path) from error
        try:
            runtime = host.runtime
            handle = runtime.start(runner_spec(host, folder, self._image[1], user))
            life = _ContainerLife(folder.path.name, runtime, host.clock, handle)
            try:
                os.write(waiting, f"{config}\n".encode())
                self._until_taken(waiting, life)
            except BaseException:
                with contextlib.suppress(EngineError):
                    runtime.remove(handle)
                raise
        except OSError as error:
            raise as_host_error(error, "can't tell a runner who it is", pipe) from error
        finally:
            os.close(waiting)
        return life

    def find(self, folder: RunnerFolder) -> _ContainerLife:
        """See `bodies.Body`."""
        host = self.host()
        return _ContainerLife(folder.path.name, host.runtime, host.clock)

    def clean(self, folder: RunnerFolder) -> None:
        """See `bodies.Body`."""
        runtime = self.host().runtime
        try:
            handle = _handle_of(runtime, folder.path.name)
            if handle is not None:
                runtime.remove(handle)
        except EngineError as error:  # the next sweep finds it
            log.warning("after a runner: %s", error.message)

    def sweep(self, root: Path) -> None:
        """See `bodies.Body`."""
        if self.host().agent.github.runners.mode != "container":
            return  # the engine need not be asked
        runtime = self.host().runtime
        with contextlib.suppress(EngineError):
            for handle in runtime.list_builds():
                is_known = any(root.parent.glob(f"*/{handle.build_id}"))
                if handle.role == ROLE and not is_known:
                    log.warning("removing the container of %s, of which nothing is known", handle)
                    runtime.remove(handle)

    def _until_taken(self, pipe: int, life: _ContainerLife) -> None:
        clock = self.host().clock
        deadline = clock.monotonic() + _TAKE_S
        while _waiting_bytes(pipe):
            if life.has_ended() or clock.monotonic() > deadline:
                said = life.output().strip()[-400:]
                raise HostError(
                    f"the runner's container does not begin{f': {said}' if said else ''}",
                    hint="The image needs /bin/sh and what GitHub's runner needs.",
                )
            clock.sleep(_PAUSE_S)


class _ContainerLife:
    """Implements `bodies.Life`. While the engine is away, a container counts as alive."""

    def __init__(
        self, name: str, runtime: DockerRuntime, clock: Clock, handle: Handle | None = None
    ) -> None:
        self._name = name
        self._runtime = runtime
        self._clock = clock
        self._handle = handle
        self._is_gone = False
        self._exit: Exit | None = None

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or is gone, after so long at most."""
        if self._exit is None and not self._is_gone:
            try:
                self._look(seconds)
            except EngineUnreachableError:
                self._clock.sleep(seconds)
            except EngineError:
                self._is_gone = True
        return self._is_gone or self._exit is not None

    def _look(self, seconds: float) -> None:
        if self._handle is None:
            self._handle = _handle_of(self._runtime, self._name)
        if self._handle is None:
            self._is_gone = True
        else:
            self._exit = self._runtime.wait(self._handle, seconds)

    def wait(self, seconds: float) -> bool:
        """See `bodies.Life`; each look asks the engine, so not too many."""
        return self.has_ended(max(seconds, _LOOK_S) if seconds else 0.0)

    def output(self) -> str:
        """See `bodies.Life`."""
        if self._handle is not None:
            with contextlib.suppress(EngineError):
                return self._runtime.output_tail(self._handle, _LINES)
        return ""

    def exit_code(self) -> int | None:
        """See `bodies.Life`."""
        return self._exit.code if self._exit is not None else None

    def interrupt(self) -> None:
        """See `bodies.Life`."""
        self._tell(self._runtime.interrupt)

    def kill(self) -> None:
        """See `bodies.Life`."""
        self._tell(self._runtime.kill)
        self.wait(_KILL_S)

    def close(self) -> None:
        """See `bodies.Life`: nothing is held."""

    def _tell(self, signal: Callable[[Handle], None]) -> None:
        if self._handle is not None:
            try:
                signal(self._handle)
            except EngineError as error:
                log.warning("%s", error.message)


def _user_of(folder: RunnerFolder, settings: RunnerSettings, host: Host) -> User:
    user = job_user(settings, host)
    return User(user.uid, user.gid, user.name, PurePosixPath(folder.home))


def _make_places(folder: RunnerFolder, user: User) -> None:
    for place in (folder.home, folder.path / "tmp"):
        place.mkdir(mode=0o700)
        own(place, user)
    (folder.path / "passwd").write_text(with_passwd("", user), encoding="utf-8")
    (folder.path / "group").write_text(with_group("", user), encoding="utf-8")


def _handle_of(runtime: DockerRuntime, name: str) -> Handle | None:
    found = runtime.list_builds()
    return next((each for each in found if (each.build_id, each.role) == (name, ROLE)), None)


def _waiting_bytes(pipe: int) -> int:
    raw = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("i", raw)[0])
