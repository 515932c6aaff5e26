"""Runners as processes of this host, each under a keeper that outlives the agent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from smidr_ci.builds.host import Host
from smidr_ci.clock import Clock
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.containers.runtime import User
from smidr_ci.errors import ConfigError, HostError
from smidr_ci.files import as_host_error, open_untrusted
from smidr_ci.forges.github.runners.archive import Archive, unpack
from smidr_ci.forges.github.runners.door import agent_socket
from smidr_ci.forges.github.runners.folder import RunnerFolder, read_json
from smidr_ci.forges.github.runners.job_containers import remove_job_containers
from smidr_ci.forges.github.runners.launching import keeper_of, keepers, launch
from smidr_ci.forges.github.runners.observation import has_worker
from smidr_ci.forges.github.runners.strays import end_strays, open_process
from smidr_ci.forges.github.runners.surroundings import (
    CONFIG_VARIABLE,
    job_user,
    own_tree,
    runner_environment,
    runners_directory,
)

__all__ = ["Patience", "Processes"]

log = logging.getLogger(__name__)

_LOG_BYTES: Final = 1 << 20
_TAIL: Final = 64 * 1024
_KILL_S: Final = 20.0
_ALL_MAY_ENTER: Final = 0o001


@dataclass(frozen=True)
class Patience:
    """How a keeper ends its runner, in seconds; see `keeper.Order`."""

    interrupt_s: float = 30.0
    terminate_s: float = 10.0
    reap_s: float = 30.0
    restart_s: float = 5.0
    update_s: float = 30.0


@dataclass(frozen=True)
class Processes:
    """Implements `bodies.Body`; `host` has the newest settings."""

    host: Callable[[], Host]
    socket: Callable[[Host], Path] = agent_socket
    """The agent's socket, as the job's user may open it."""
    patience: Patience = field(default_factory=Patience)
    user: Callable[[RunnerSettings, Host], User] = job_user
    """Who jobs run as."""

    def prepare(self) -> None:
        """See `bodies.Body`: nothing is needed."""

    def check(self) -> None:
        """See `bodies.Body`."""
        host = self.host()
        settings = host.agent.github.runners
        user = self.user(settings, host)
        if user.uid != os.geteuid():
            _check_way(runners_directory(settings, host), user, host.home.agent_config)

    def start(self, folder: RunnerFolder, archive: Archive, config: str) -> _ProcessLife:
        """See `bodies.Body`."""
        host = self.host()
        settings = host.agent.github.runners
        user = self.user(settings, host)
        unpack(archive, folder.root)
        try:
            folder.home.mkdir(mode=0o700)
            own_tree(folder.root, user)
            own_tree(folder.home, user)
        except OSError as error:
            raise as_host_error(error, "can't prepare a runner", folder.path) from error
        environment = runner_environment(folder, user, settings, host.environ, self.socket(host))
        environment[CONFIG_VARIABLE] = config
        self._spawn(folder, user, environment)
        life = self._alive(folder)
        if life is None:
            raise HostError("a runner's keeper ended at once", where=str(folder.path))
        return life

    def find(self, folder: RunnerFolder) -> _ProcessLife:
        """See `bodies.Body`."""
        life = self._alive(folder)
        if life is None:
            # Perhaps its agent died before the keeper had noted who it is.
            life = _ProcessLife(folder, keeper_of(folder.path), self.host().clock)
        return life

    def clean(self, folder: RunnerFolder) -> None:
        """See `bodies.Body`."""
        host = self.host()
        end_strays(folder.path, host.clock)  # a job may have killed its keeper
        if has_worker(folder.root):
            remove_job_containers(host, folder.root)

    def sweep(self, root: Path) -> None:
        """See `bodies.Body`."""
        for handle, path in keepers():
            if path.parent == root and not path.exists():
                log.warning("ending the runner of %s, which somebody removed", path)
                life = _ProcessLife(RunnerFolder(path), handle, self.host().clock)
                life.kill()
                life.close()
            else:
                os.close(handle)

    def _alive(self, folder: RunnerFolder) -> _ProcessLife | None:
        handle = open_process(read_json(folder.keeper))
        return _ProcessLife(folder, handle, self.host().clock) if handle is not None else None

    def _spawn(self, folder: RunnerFolder, user: User, environment: dict[str, str]) -> None:
        """Start the keeper, which starts the runner; raises `HostError`."""
        is_other = user.uid != os.geteuid()
        order: dict[str, Any] = {
            "argv": [str(folder.root / "bin" / "Runner.Listener"), "run"],
            "env": environment,
            "cwd": str(folder.root),
            "log": str(folder.log),
            "log_bytes": _LOG_BYTES,
            "ids": [user.uid, user.gid] if is_other else None,
            **vars(self.patience),
        }
        try:
            said = launch(folder.path, json.dumps(order).encode())
        except OSError as error:
            raise as_host_error(error, "can't start a runner's keeper", folder.path) from error
        if "pid" not in said:
            why = str(said.get("error") or "its keeper says nothing")
            raise HostError(
                f"the official runner can't be started: {why}",
                where=str(folder.root),
                hint="Is the archive for this host's architecture, and may programs run from "
                "there (no `noexec`)?",
            )


class _ProcessLife:
    """Implements `bodies.Life` for a keeper, whose end is the end of all."""

    def __init__(self, folder: RunnerFolder, handle: int, clock: Clock) -> None:
        self._folder = folder
        self._handle = handle
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        """See `bodies.Life`."""
        if self._handle < 0:
            return True
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000)) and self._reaped()

    def _reaped(self) -> bool:
        # Nobody's zombie: those of an earlier agent are not our children.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._handle, os.WEXITED)
        return True

    def output(self) -> str:
        """See `bodies.Life`."""
        with contextlib.suppress(OSError), open_untrusted(self._folder.log) as file:
            head = file.read(_TAIL)
            size = os.fstat(file.fileno()).st_size
            if size <= _TAIL:
                return head.decode(errors="replace")
            file.seek(max(size - _TAIL, _TAIL))
            return (head + b"\n" + file.read(_TAIL)).decode(errors="replace")
        return ""

    def exit_code(self) -> int | None:
        """See `bodies.Life`."""
        return exit_code_in(self._folder)

    def interrupt(self) -> None:
        """See `bodies.Life`."""
        self._signal(signal.SIGCONT)  # a job may have stopped its keeper, when they are one user
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `bodies.Life`."""
        self.interrupt()
        self.interrupt()
        if not self.wait(_KILL_S):
            self._signal(signal.SIGKILL)
            end_strays(self._folder.path, self._clock)
            self.wait(_KILL_S)

    def close(self) -> None:
        """See `bodies.Life`."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _signal(self, number: int) -> None:
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)


def exit_code_in(folder: RunnerFolder) -> int | None:
    """What the keeper noted; None when there is nothing of use."""
    code = read_json(folder.exit).get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _check_way(directory: Path, user: User, settings: Path) -> None:
    """Raise unless the user can reach the directory; `x` for all is what is asked of each part."""
    for part in (directory, *directory.parents):
        with contextlib.suppress(FileNotFoundError):
            info = part.stat()
            if info.st_uid != user.uid and not info.st_mode & _ALL_MAY_ENTER:
                raise ConfigError(
                    f"jobs run as uid {user.uid}, which can't enter {part}",
                    where=str(settings),
                    hint="Name a directory under github.runners.directory that it can reach, such "
                    "as /srv/smidr-runners.",
                )
