"""What a repository's URL means: which host gets credentials, which mirror on disk is its own."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from smidr_ci.config.giturl import check_git_url
from smidr_ci.errors import LayerError

__all__ = ["SCHEMES", "RepositoryUrl", "parse_url"]

SCHEMES: Final = ("https", "http", "ssh", "git", "file")
"""What git may be asked to use."""

_SHORT: Final = re.compile(r"(?P<user>[^@/:]+)@(?P<host>\[[^]]+\]|[^:/]+):(?P<path>.+)")
_DEFAULT_PORTS: Final = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class RepositoryUrl:
    """A checked URL without any secret; `host` has no port, and is empty for `file`."""

    url: str
    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def is_private_channel(self) -> bool:
        """Whether a token may be sent: TLS, or a server on this machine."""
        return self.scheme == "https" or (self.scheme == "http" and self.host in _LOOPBACK)

    @cached_property
    def key(self) -> str:
        """The same for spellings of one URL: no user, default port, trailing `/` or `.git`."""
        port = f":{self.port}" if self.port else ""
        path = re.sub(r"/{2,}", "/", self.path).rstrip("/").removesuffix(".git")
        return f"{self.scheme}://{self.host}{port}/{path.lstrip('/')}"

    @cached_property
    def directory_name(self) -> str:
        """A readable name that no other repository has: last part of the path and a hash."""
        last = self.key.rstrip("/").rpartition("/")[2]
        name = re.sub(r"[^A-Za-z0-9._+]+", "-", last).strip(".-")[:60] or "repository"
        return f"{name}-{hashlib.sha256(self.key.encode()).hexdigest()[:12]}"

    @property
    def mirror_name(self) -> str:
        """Name of the bare mirror's directory."""
        return f"{self.directory_name}.git"

    @property
    def history_name(self) -> str:
        """Name of the bare repository that holds commits without files."""
        return f"{self.directory_name}.history.git"

    @property
    def local_path(self) -> Path | None:
        """The directory that a `file` URL names."""
        return Path(self.path) if self.scheme == "file" else None


def parse_url(url: str) -> RepositoryUrl:
    """Read `scheme://host/path` or `user@host:path`; raises `LayerError` for anything else."""
    try:
        check_git_url(url)
        short = None if "://" in url else _SHORT.fullmatch(url)
        if short is not None:
            return RepositoryUrl(
                url, "ssh", short["host"].strip("[]").lower(), None, os.sep + short["path"]
            )
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        port = parts.port if parts.port != _DEFAULT_PORTS.get(scheme) else None
    except ValueError as error:
        raise LayerError(
            f"a git URL {error}", hint="Write https://, ssh://, git:// or file:///."
        ) from error
    host = "" if scheme == "file" else (parts.hostname or "")
    return RepositoryUrl(url, scheme, host, port, unquote(parts.path))
