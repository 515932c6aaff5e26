"""HTTP to one GitHub: time limits, redirects, proxies, and no secret in an error.

It sits below every call; a caller sees one answer, or `ForgeUnreachableError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.errors import ForgeUnreachableError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.sessions import SessionHolder, root_of
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.text import printable

__all__ = ["Limits", "Transport", "masked", "shown_url"]

_REDIRECTS: Final = 5
_SAME_METHOD: Final = frozenset({301, 307, 308})
_SECRETS: Final = re.compile(
    r"(?i)((?:sig|signature|token|access_token)=)[^&\s\"']+"
    r"|\b((?:bearer|token|remoteauth)\s+)[\w.~+/=-]+"
    r"|\b(gh[a-z]_|github_pat_)[\w.-]+"
)


@dataclass(frozen=True)
class Limits:
    """What one call may take."""

    connect_s: float = 15.0
    pause_s: float = 60.0
    """Without a byte from the server."""
    whole_s: float = 300.0
    body_bytes: int = 32 * 1024 * 1024


class Transport:
    """A connection pool; all methods may be used from any thread."""

    def __init__(
        self,
        tls: TlsFiles | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        *,
        pool_size: int = 8,
    ) -> None:
        self._clock = clock or SystemClock()
        self.limits = limits or Limits()
        self._sessions = SessionHolder(tls or TlsFiles(), pool_size=pool_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
        self._sessions.close()

    def end(self) -> None:
        """End the calls that run and all that come: they find no server."""
        self._sessions.end()

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | memoryview | None = None,
    ) -> Reply:
        """One answer, after redirects; raises `ForgeUnreachableError` when none comes.

        A redirect keeps the method, as GitHub asks for renamed repositories. To another host only
        a GET follows, without its Authorization.
        """
        sent = dict(headers)
        for _ in range(_REDIRECTS + 1):
            reply = self._once(method, url, sent, body)
            target = reply.headers.get("Location")
            is_moved = reply.status in _SAME_METHOD or (reply.status == 302 and method == "GET")
            if not is_moved or not target:
                return reply
            url, is_elsewhere = _redirected(method, url, target)
            if is_elsewhere:
                sent.pop("Authorization", None)
        raise ForgeUnreachableError("the server redirects without end", where=shown_url(url))

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | memoryview | None,
    ) -> Reply:
        try:
            response = self._sessions.get().request(
                method,
                url,
                # Nothing of it is copied, and each part that goes out has a time limit of its own.
                data=memoryview(body) if body else None,
                headers=dict(headers),
                timeout=(self.limits.connect_s, self.limits.pause_s),
                allow_redirects=False,
                stream=True,
            )
            with response:
                found = self._read(response)
        except (requests.RequestException, OSError, ValueError) as error:
            raise _unreachable(error, url) from None  # its text may hold a signed URL
        return Reply(response.status_code, response.headers, found, shown_url(url))

    def _read(self, response: requests.Response) -> bytes:
        until = self._clock.monotonic() + self.limits.whole_s
        parts, size = [], 0
        for part in response.iter_content(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > self.limits.body_bytes:
                raise ValueError("the answer is too long")
            if self._clock.monotonic() > until:
                raise ValueError("the answer takes too long")
        return b"".join(parts)


def shown_url(url: str) -> str:
    """The URL without its query, which may hold a signature."""
    parts = urlsplit(url)
    return printable(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))[:500]


def masked(text: str) -> str:
    """The text with what looks like a token or signature left out."""
    return _SECRETS.sub(lambda match: f"{match[1] or match[2] or match[3]}***", text)


def _redirected(method: str, url: str, target: str) -> tuple[str, bool]:
    found = urljoin(url, target)
    old, new = urlsplit(url), urlsplit(found)
    is_elsewhere = (old.scheme, old.netloc) != (new.scheme, new.netloc)
    is_downgrade = old.scheme == "https" and new.scheme != "https"
    if new.scheme not in {"http", "https"} or is_downgrade or (is_elsewhere and method != "GET"):
        raise ForgeUnreachableError(
            f"the server redirects to {shown_url(found)}, where the call must not go",
            where=shown_url(url),
            hint="Register this host with the address that GitHub has now.",
            is_misconfigured=True,
        )
    return found, is_elsewhere


def _unreachable(error: Exception, url: str) -> ForgeUnreachableError:
    if isinstance(error, ForgeUnreachableError):
        return error
    is_tls = isinstance(error, requests.exceptions.SSLError)
    root = root_of(error)
    said = masked(printable(str(root)))[:300] or type(root).__name__
    hint = "Does the address answer from this host, and is the network or proxy up?"
    if is_tls:
        hint = "Give the authority's certificate with --tls-ca-file, or mend the server's."
    return ForgeUnreachableError(
        f"no answer from GitHub: {said}", where=shown_url(url), hint=hint, is_misconfigured=is_tls
    )
