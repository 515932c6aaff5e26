"""Runs git on a stranger's data: by argument list, in a clean environment, killable, bounded.

GitPython is not used: its calls run the same git with the caller's environment, system and user
config, without process group or limits, and importing it costs more than a whole no-op sync.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import HostError
from smidr_ci.layers.credentials import ChildAccess
from smidr_ci.layers.failures import GitError, GitFailure, classify
from smidr_ci.layers.urls import SCHEMES

__all__ = ["Git", "end"]

_INHERITED: Final = frozenset(
    {"PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"}
    | {f"{kind}_{word}" for kind in ("http", "https", "all", "no") for word in ("proxy",)}
    | {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")}
)
_SETTINGS: Final = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("protocol.version", "2"),
    ("protocol.ext.allow", "never"),
    ("safe.bareRepository", "explicit"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("transfer.bundleURI", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # A line that carries less than 1 kB/s for 30 s is dead.
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
)
_OLDEST: Final = (2, 31)
_URL_PASSWORD: Final = re.compile(r"://[^/@:\s]+:[^/@\s]+@")
_STDERR_KEPT: Final = 64 * 1024
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Git:
    """How to run git here; each call may come from any thread."""

    schemes: tuple[str, ...] = SCHEMES
    """URL schemes that may be used at all."""
    timeout_s: float = 1800.0
    """Limit of one command."""
    global_config: Path = Path("/dev/null")
    """Read as git's global config; only a local server child needs one (`safe.directory`)."""

    def run(
        self,
        arguments: Sequence[str],
        *,
        cancel: CancelToken,
        access: ChildAccess | None = None,
        keep_fds: Sequence[int] = (),
        output_limit: int = 64 << 20,
    ) -> bytes:
        """Run `git <arguments>` and return its standard output.

        Raises `GitError` by kind of failure, `CancelledError`, or `HostError` without git.
        """
        access = access or ChildAccess()
        process = self.start(arguments, access=access, keep_fds=keep_fds)
        try:
            out, err = _drain(process, cancel, self.timeout_s, output_limit)
        finally:
            end(process)
        if process.returncode:
            raise GitError(*classify(_masked(err.decode(errors="replace"), access.secrets)))
        return out

    def start(
        self,
        arguments: Sequence[str],
        *,
        access: ChildAccess | None = None,
        keep_fds: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start git in a process group of its own, to be ended with `end`."""
        _require_version(os.environ.get("PATH"))
        return subprocess.Popen(
            ["git", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(access or ChildAccess()),
            pass_fds=tuple(keep_fds),
            start_new_session=True,
        )

    def _environment(self, access: ChildAccess) -> dict[str, str]:
        settings = (*_SETTINGS, *access.settings)
        chosen = {name: value for name, value in os.environ.items() if name in _INHERITED}
        chosen |= {
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.global_config),
            "GIT_ALLOW_PROTOCOL": ":".join(self.schemes),
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            # Without credentials of the operator's, ssh uses no key and no agent.
            "GIT_SSH_COMMAND": "false",
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, (key, value) in enumerate(settings):
            chosen[f"GIT_CONFIG_KEY_{number}"] = key
            chosen[f"GIT_CONFIG_VALUE_{number}"] = value
        return chosen | dict(access.environment)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group, and close the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _drain(
    process: subprocess.Popen[bytes], cancel: CancelToken, timeout_s: float, limit: int
) -> tuple[bytes, bytes]:
    out, err = bytearray(), bytearray()
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for pipe, buffer in ((process.stdout, out), (process.stderr, err)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, buffer)
        while selector.get_map():
            cancel.raise_if_cancelled()
            if time.monotonic() > deadline:
                raise GitError(GitFailure.NETWORK, f"timed out after {timeout_s:g} s")
            for key, _ in selector.select(_POLL_S):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            del err[:-_STDERR_KEPT]
            if len(out) > limit:
                raise GitError(GitFailure.OTHER, f"the answer is longer than {limit >> 20} MiB")
    _await_exit(process, cancel, deadline)
    return bytes(out), bytes(err)


def _await_exit(process: subprocess.Popen[bytes], cancel: CancelToken, deadline: float) -> None:
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            cancel.raise_if_cancelled()
            if time.monotonic() > deadline:
                raise GitError(GitFailure.NETWORK, "timed out") from None
        else:
            return


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[hidden]")
    # A proxy's password, say, which the environment may hold.
    return _URL_PASSWORD.sub("://[hidden]@", text)


@cache
def _require_version(path: str | None) -> None:
    """Refuse a git that would not read our settings from its environment (before 2.31)."""
    try:
        done = subprocess.run(
            ["git", "--version"], capture_output=True, check=True, env={"PATH": path or os.defpath}
        )
    except (FileNotFoundError, PermissionError):
        raise HostError("git is not installed", hint="Install it: apt-get install git") from None
    except (subprocess.CalledProcessError, OSError) as error:
        raise HostError(f"git does not run: {error}", hint="Install git anew.") from error
    found = re.search(rb"(\d+)\.(\d+)", done.stdout)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise HostError(
            f"git is too old: {done.stdout.decode(errors='replace').strip()}",
            hint=f"Install git {_OLDEST[0]}.{_OLDEST[1]} or newer.",
        )
