"""What git may show which host: the operator's entries, and the caller's own login."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from smidr_ci.config.agent import Credential, Git
from smidr_ci.layers.credentials import Credentials, HostCredentials

__all__ = ["credentials_of"]


def credentials_of(git: Git, environ: Mapping[str, str]) -> Credentials:
    """The entries of `agent.yaml` first, then the netrc and ssh setup of whoever runs smidr."""
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    return replace(Credentials.of_user(home), hosts=tuple(_entry(one) for one in git.credentials))


def _entry(credential: Credential) -> HostCredentials:
    return HostCredentials(
        host=credential.host,
        username=credential.username,
        token_file=credential.token_file,
        netrc=credential.netrc_file,
        ssh_key=credential.ssh_key_file,
        known_hosts=credential.known_hosts_file,
    )
