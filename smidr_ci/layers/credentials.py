"""Who we are to a git host: the operator's tokens, netrc and ssh keys.

A secret reaches git in the environment of one child only, through a credential helper that answers
for exactly one scheme and host, so a redirect to another host gets nothing. It is never in an
argument, a git config file, a log or an error text.
"""

from __future__ import annotations

import netrc
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.errors import LayerError
from smidr_ci.files import open_untrusted
from smidr_ci.layers.urls import RepositoryUrl

__all__ = ["ChildAccess", "Credentials", "HostCredentials", "token_access"]

_MAX_SECRET: Final = 64 * 1024
# git's credential protocol: `key=value` lines on stdin, the same as the answer (gitcredentials(7)).
_HELPER: Final = (
    '!f() { test "$1" = get || exit 0; while IFS= read -r l && test -n "$l"; do case "$l" in '
    'protocol=*) p="${l#protocol=}";; host=*) h="${l#host=}";; esac; done; '
    'test "$p://$h" = "$SMIDR_GIT_FOR" || exit 0; '
    'printf "username=%s\\npassword=%s\\n" "$SMIDR_GIT_USER" "$SMIDR_GIT_SECRET"; }; f'
)
_SSH: Final = (
    "ssh", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15",
    "-oServerAliveCountMax=4", "-oForwardAgent=no", "-oForwardX11=no", "-oControlMaster=no",
)  # fmt: skip


@dataclass(frozen=True)
class HostCredentials:
    """What to show one host; `host` may carry a port (`git.example.com:8443`)."""

    host: str
    username: str = "oauth2"
    """The forges take any name with a token; GitLab's job token wants `gitlab-ci-token`."""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    netrc: Path | None = None
    """Instead of a token: a file in netrc format."""
    ssh_key: Path | None = None
    known_hosts: Path | None = None


@dataclass(frozen=True)
class ChildAccess:
    """What one git child gets: environment, git settings, and the secrets to hide in its output."""

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Credentials:
    """All that the operator gives. Without any, git asks nobody and uses no key of the user."""

    hosts: tuple[HostCredentials, ...] = ()
    netrc: Path | None = None
    uses_own_ssh: bool = False
    """Whether ssh may use this user's agent, keys and configuration; never for a stranger's job."""
    known_hosts: Path | None = None

    @classmethod
    def of_user(cls, home: Path | None = None) -> Credentials:
        """The caller's own ssh setup and `~/.netrc`: for a person who builds at a terminal."""
        own = (home or Path.home()) / ".netrc"
        return cls(netrc=own if own.is_file() else None, uses_own_ssh=True)

    def access(self, url: RepositoryUrl) -> ChildAccess:
        """What to give the git child that talks to this URL; raises `LayerError`."""
        if url.scheme == "ssh":
            return self._ssh_access(url)
        if not url.is_private_channel:
            return ChildAccess()
        username, secret = self._password(url)
        if not secret:
            return ChildAccess()
        port = f":{url.port}" if url.port else ""
        host = f"[{url.host}]" if ":" in url.host else url.host
        return token_access(f"{url.scheme}://{host}{port}", username, secret)

    def _entry(self, url: RepositoryUrl) -> HostCredentials | None:
        with_port = f"{url.host}:{url.port}" if url.port else url.host
        for entry in self.hosts:
            if entry.host.lower() in {with_port, url.host}:
                return entry
        return None

    def _password(self, url: RepositoryUrl) -> tuple[str, str]:
        entry = self._entry(url)
        if entry is not None and entry.token:
            return entry.username, _one_line(entry.token, entry.host)
        if entry is not None and entry.token_file is not None:
            return entry.username, _one_line(_read(entry.token_file), str(entry.token_file))
        netrc = (entry.netrc if entry is not None else None) or self.netrc
        if netrc is None:
            return "", ""
        found = _read_netrc(netrc, url.host)
        return (found[0], _one_line(found[1], str(netrc))) if found else ("", "")

    def _ssh_access(self, url: RepositoryUrl) -> ChildAccess:
        entry = self._entry(url)
        key = entry.ssh_key if entry else None
        known = (entry.known_hosts if entry else None) or self.known_hosts
        options = list(_SSH)
        environment = {}
        if key is not None:
            options += ["-F/dev/null", "-oIdentitiesOnly=yes", "-oIdentityAgent=none", f"-i{key}"]
        elif self.uses_own_ssh:
            environment = {k: v for k, v in os.environ.items() if k == "SSH_AUTH_SOCK"}
        else:
            options += ["-F/dev/null", "-oIdentityAgent=none", "-oPubkeyAuthentication=no"]
        if known is not None:
            options += [f'-oUserKnownHostsFile="{known}"', "-oGlobalKnownHostsFile=/dev/null"]
        options.append("-oStrictHostKeyChecking=yes")
        environment |= {"GIT_SSH_COMMAND": shlex.join(options), "GIT_SSH_VARIANT": "ssh"}
        return ChildAccess(environment)


def token_access(origin: str, username: str, secret: str) -> ChildAccess:
    """A login for one git child, shown to `origin` (`scheme://host[:port]`) and to nobody else."""
    environment = {
        "SMIDR_GIT_FOR": origin,
        "SMIDR_GIT_USER": username,
        "SMIDR_GIT_SECRET": secret,
    }
    return ChildAccess(environment, (("credential.helper", _HELPER),), (secret,))


def _read(path: Path) -> str:
    try:
        with open_untrusted(path) as file:
            return (file.read(_MAX_SECRET) or b"").decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise LayerError(
            f"can't read the credentials: {reason}",
            where=str(path),
            hint="Mend the path or its permissions in agent.yaml.",
        ) from None


def _read_netrc(path: Path, host: str) -> tuple[str, str] | None:
    try:
        found = netrc.netrc(str(path)).authenticators(host)
    except netrc.NetrcParseError as error:
        # Its text may repeat a token that stands in the wrong place.
        raise LayerError(
            "not a valid netrc file", where=f"{path}:{error.lineno}", hint="Mend this line."
        ) from None
    except OSError as error:
        raise LayerError(f"can't read it: {error.strerror}", where=str(path)) from None
    return (found[0] or "", found[2] or "") if found else None


def _one_line(secret: str, where: str) -> str:
    secret = secret.strip()
    if any(char in secret for char in "\n\r\0"):
        raise LayerError("a token must be one line", where=where, hint="Mend the file.")
    return secret
