"""Names for runners, by which this host knows its own again in GitHub's lists."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path
from typing import Final

from smidr_ci.files import as_host_error, make_private_dir, write_atomic
from smidr_ci.home import Home

__all__ = ["RunnerNames"]

_TAG: Final = re.compile(r"[0-9a-f]{6}")
_HOST_LENGTH: Final = 24


class RunnerNames:
    """`smidr-<host>-<tag>-<random>`; the tag is that of one registration in one home.

    Two agents may have the same host name, and one must not delete what the other is starting.
    """

    def __init__(self, home: Home, registration: str, host: str = "") -> None:
        """Raises `HostError` when the tag can't be stored."""
        path = home.root / "github" / registration / "runner-tag"
        name = re.sub(r"[^a-z0-9]+", "-", (host or socket.gethostname()).lower())
        self.host = name.strip("-")[:_HOST_LENGTH].strip("-") or "host"
        self.tag = _kept_tag(path)

    @property
    def prefix(self) -> str:
        """How the names of this registration's runners begin."""
        return f"smidr-{self.host}-{self.tag}-"

    def fresh(self) -> str:
        """A name that no runner had before."""
        return f"{self.prefix}{secrets.token_hex(4)}"

    def is_ours(self, name: str) -> bool:
        """Whether a runner of GitHub's list is one that this host asked for.

        By the tag alone: the host may have been renamed since.
        """
        return re.fullmatch(rf"smidr-.+-{self.tag}-[0-9a-f]{{8}}", name) is not None


def _kept_tag(path: Path) -> str:
    try:
        stored = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        stored = ""
    if _TAG.fullmatch(stored):
        return stored
    fresh = secrets.token_hex(3)
    try:
        make_private_dir(path.parent)
        write_atomic(path, fresh + "\n", mode=0o600)
    except OSError as error:
        raise as_host_error(error, "can't store the mark of this host's runners", path) from error
    return fresh
