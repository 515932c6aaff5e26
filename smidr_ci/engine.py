"""The connection to a container engine: where its socket is, what it can do, what went wrong.

Docker Engine and Podman's Docker-compatible socket. Shared by images, containers and the doctor;
the docker SDK is imported with the first call, not with this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from smidr_ci.errors import EngineError
from smidr_ci.text import printable

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["Engine", "EngineFacts", "EngineRefusalError", "EngineUnreachableError", "find_url"]

DEFAULT_SOCKET: Final = "/var/run/docker.sock"
_DAEMON_HINT: Final = (
    "Start it with `systemctl start docker` (or install it: `apt-get install docker.io`), "
    "or set DOCKER_HOST to the socket of your engine."
)
_GROUP_HINT: Final = (
    "Add your user to the group that owns the socket: "
    "`sudo usermod -aG docker $USER`, then log in again."
)


class EngineUnreachableError(EngineError):
    """The engine does not answer: not running, restarting, or no permission for its socket."""


class EngineRefusalError(EngineError):
    """The engine answered with an error; `status` is the HTTP status (404 gone, 409 conflict)."""

    def __init__(self, message: str, *, status: int, answer: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.answer = answer
        """The engine's own words."""


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself (Engine API: GET /version and GET /info)."""

    version: str
    api_version: str
    is_podman: bool
    is_rootless: bool
    has_user_remap: bool
    """The daemon maps container users to a range of host users (`userns-remap`)."""
    has_selinux: bool
    cpus: int
    memory_bytes: int
    storage_driver: str
    root_dir: str
    cgroup_version: str
    limits_memory: bool
    limits_swap: bool
    limits_pids: bool

    @classmethod
    def from_answers(cls, version: Mapping[str, Any], info: Mapping[str, Any]) -> EngineFacts:
        """Read the two answers; what an engine leaves out is taken as not limited, not there."""
        options = _security_options(info)
        components = [str(part.get("Name", "")) for part in version.get("Components") or ()]
        return cls(
            version=str(version.get("Version", "?")),
            api_version=str(version.get("ApiVersion", "?")),
            is_podman=any("podman" in name.lower() for name in components),
            is_rootless="rootless" in options,
            has_user_remap="userns" in options,
            has_selinux="selinux" in options,
            cpus=int(info.get("NCPU") or 0),
            memory_bytes=int(info.get("MemTotal") or 0),
            storage_driver=str(info.get("Driver", "?")),
            root_dir=str(info.get("DockerRootDir", "")),
            cgroup_version=str(info.get("CgroupVersion", "1")),
            limits_memory=bool(info.get("MemoryLimit", True)),
            limits_swap=bool(info.get("SwapLimit", True)),
            limits_pids=bool(info.get("PidsLimit", True)),
        )


def _security_options(info: Mapping[str, Any]) -> frozenset[str]:
    # Entries look like "name=seccomp,profile=default".
    found = (re.match(r"name=([\w-]+)", str(entry)) for entry in info.get("SecurityOptions") or ())
    return frozenset(match.group(1) for match in found if match)


def find_url(environ: Mapping[str, str]) -> str:
    """The engine's URL: DOCKER_HOST, else the first socket of the usual ones that exists."""
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"]
    runtime_dir = environ.get("XDG_RUNTIME_DIR")
    own = [f"{runtime_dir}/docker.sock", f"{runtime_dir}/podman/podman.sock"] if runtime_dir else []
    for candidate in (DEFAULT_SOCKET, *own, "/run/podman/podman.sock"):
        with contextlib.suppress(OSError):
            if Path(candidate).exists():
                return f"unix://{candidate}"
    return f"unix://{DEFAULT_SOCKET}"


class Engine:
    """One engine, connected to with the first use; thread-safe, and outlives its restarts."""

    def __init__(
        self,
        url: str | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        timeout_s: float = 60.0,
    ) -> None:
        self.url = url or find_url(environ)
        self._environ = environ
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._api: APIClient | None = None
        self._facts: EngineFacts | None = None

    @property
    def api(self) -> APIClient:
        """The SDK's low-level client; raises `EngineUnreachableError` when nobody answers."""
        with self._lock:
            if self._api is None:
                self._api = self._connect()
            return self._api

    @property
    def facts(self) -> EngineFacts:
        """What the engine is; asked once."""
        if self._facts is None:
            with self.calling("ask the container engine for its version"):
                self._facts = EngineFacts.from_answers(self.api.version(), self.api.info())
        return self._facts

    def load(self) -> None:
        """Load the SDK now, before threads that would all do so at once."""
        _sdk()

    def reach(self) -> None:
        """Raise `EngineError` unless the engine answers now."""
        with self.calling("reach the container engine"):
            self.api.ping()

    def warm_up(self) -> None:
        """Load the SDK, connect and ask in the background; what goes wrong, the first use tells."""
        threading.Thread(target=self._try, name="engine", daemon=True).start()

    def _try(self) -> None:
        with contextlib.suppress(EngineError):
            self.facts  # noqa: B018 - the first use connects

    def close(self) -> None:
        """Close the connections; a later use connects again."""
        with self._lock:
            if self._api is not None:
                self._api.close()
                self._api = None

    @contextlib.contextmanager
    def calling(self, action: str) -> Iterator[None]:
        """Turn the SDK's exceptions into ours; `action` completes "can't ..."."""
        sdk = _sdk()
        try:
            yield
        except sdk.APIError as error:
            answer = printable(sdk.answer_of(error))
            raise EngineRefusalError(
                f"can't {action}: {answer}", status=error.status_code or 0, answer=answer
            ) from error
        except sdk.DockerException as error:
            raise EngineError(f"can't {action}: {error}") from error
        except sdk.LOST_CONNECTION as error:
            raise EngineUnreachableError(
                f"can't {action}: the container engine at {self.url} does not answer",
                hint="See `journalctl -u docker`; `smidr doctor` checks the engine.",
            ) from error

    def _connect(self) -> APIClient:
        check_socket(self.url)
        try:
            api: APIClient = _sdk().connect(self.url, self._environ, self._timeout_s)
        except ValueError as error:
            raise EngineError(f"can't connect to {self.url}: {error}") from error
        except ConnectionError as error:
            raise EngineUnreachableError(
                f"no container engine answers at {self.url}: {error}", hint=_DAEMON_HINT
            ) from error
        return api


def _sdk() -> ModuleType:
    from smidr_ci import docker_sdk  # noqa: PLC0415 - 0.2 s that most commands need not pay

    return docker_sdk


def check_socket(url: str, timeout_s: float = 5.0) -> None:
    """Connect to a unix socket once, for an error that says what exactly is wrong.

    Other URLs pass unchecked. Raises `EngineUnreachableError`.
    """
    path = url.removeprefix("unix://")
    if path == url:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(timeout_s)
    try:
        probe.connect(path)
    except OSError as error:
        reason, hint = _socket_fault(error)
        raise EngineUnreachableError(
            f"no container engine at {path}: {reason}", hint=hint
        ) from error
    finally:
        probe.close()


def _socket_fault(error: OSError) -> tuple[str, str]:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "there is no such socket, so the engine is not running", _DAEMON_HINT
        case errno.EACCES | errno.EPERM:
            return "permission denied", _GROUP_HINT
        case errno.ECONNREFUSED:
            return "connection refused, nobody listens on the socket", _DAEMON_HINT
        case _:
            return error.strerror or str(error), _DAEMON_HINT
