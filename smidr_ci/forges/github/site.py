"""Which GitHub a host works for: its addresses, worked out of one URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from smidr_ci.errors import UsageError
from smidr_ci.text import printable

__all__ = ["Site", "is_repository_name"]

_OWNER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,38})", re.ASCII)
_NAME: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,100}", re.ASCII)
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Site:
    """An organisation or repository, and the GitHub that it lives on."""

    web: str
    """`https://github.com`, or the address of a GitHub Enterprise Server."""
    owner: str
    name: str = ""
    """The repository's name; empty for a whole organisation or account."""

    @classmethod
    def of(cls, url: str) -> Site:
        """Of `https://HOST/OWNER[/REPOSITORY]`; raises `UsageError` for anything else."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", None
        names = parts.path.strip("/").removesuffix(".git").split("/")
        is_local = host in _LOCAL
        is_good = parts.scheme == "https" or (parts.scheme == "http" and is_local)
        if not is_good or not host or parts.username is not None or parts.query or parts.fragment:
            raise _not_an_address(url)
        if len(names) > 2 or not _OWNER.fullmatch(names[0]):
            raise _not_an_address(url)
        if len(names) == 2 and not _NAME.fullmatch(names[1]):
            raise _not_an_address(url)
        shown = f"[{host}]" if ":" in host else host
        web = f"{parts.scheme}://{shown.lower()}{f':{port}' if port else ''}"
        return cls(web.replace("://www.github.com", "://github.com"), *names)

    @property
    def repository(self) -> str:
        """`owner/name`; empty for a whole organisation."""
        return f"{self.owner}/{self.name}" if self.name else ""

    @property
    def host(self) -> str:
        """The web address's host name, with the port where it has one."""
        return self.web.partition("://")[2]

    @property
    def is_server(self) -> bool:
        """A GitHub Enterprise Server, and neither github.com nor a `*.ghe.com`."""
        return self.host != "github.com" and not self.host.endswith(".ghe.com")

    @property
    def api(self) -> str:
        """Where the REST API is, without a slash at the end."""
        return f"{self.web}/api/v3" if self.is_server else self.web.replace("://", "://api.", 1)

    @property
    def token_issuer(self) -> str:
        """Who signs the identity tokens of its jobs (docs.github.com, "OpenID Connect")."""
        if self.host == "github.com":
            return "https://token.actions.githubusercontent.com"
        if self.host.endswith(".ghe.com"):
            return f"https://token.actions.{self.host}"
        return f"{self.web}/_services/token"

    def covers(self, repository: str) -> bool:
        """Whether `owner/name` belongs to what this host is registered for."""
        owner, _, name = repository.partition("/")
        is_owner = owner.lower() == self.owner.lower() and is_repository_name(repository)
        return is_owner and (not self.name or name.lower() == self.name.lower())

    def serves_results(self, url: str) -> bool:
        """Whether a results service at this address is GitHub's own.

        A job tells the address, and a job may be a stranger's.
        """
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
        except ValueError:
            return False
        if parts.scheme == "http":
            return host in _LOCAL and self.host.partition(":")[0] in _LOCAL
        if parts.scheme != "https" or parts.port not in {None, 443}:
            return False
        if self.host == "github.com":
            return host.endswith(".actions.githubusercontent.com")
        return self.host.endswith(".ghe.com") and host.endswith(f".{self.host}")


def is_repository_name(text: str) -> bool:
    """Whether it reads `owner/name`, and so may stand in a path."""
    owner, slash, name = text.partition("/")
    return bool(slash and _OWNER.fullmatch(owner) and _NAME.fullmatch(name))


def _not_an_address(url: str) -> UsageError:
    has_login = "@" in url
    shown = "the URL" if has_login else repr(printable(url)[:200])
    return UsageError(
        f"{shown} is not the address of a GitHub organisation or repository",
        hint="Write it as https://github.com/ORGANISATION or https://github.com/OWNER/REPOSITORY, "
        "without a user name.",
    )
