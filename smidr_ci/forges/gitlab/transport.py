"""HTTP as the runner protocol wants it: headers, correlation ids, redirects, retries, time limits.

It sits below every call; a caller sees one answer, or `ForgeUnreachableError`.
"""

from __future__ import annotations

import email.utils
import io
import logging
import platform
import random
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

import requests

from smidr_ci import __version__
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.errors import ForgeUnreachableError
from smidr_ci.forges.gitlab.exchange import Call, Limits, OnCall, Pause, Reply, api_url
from smidr_ci.forges.sessions import SessionHolder, root_of
from smidr_ci.forges.tls import TlsFiles
from smidr_ci.text import printable

__all__ = [
    "USER_AGENT",
    "Call",
    "Limits",
    "OnCall",
    "Pause",
    "Reply",
    "Transport",
    "api_url",
]

log = logging.getLogger(__name__)

USER_AGENT: Final = (
    f"smidr-ci {__version__} (python {platform.python_version()}; "
    f"{platform.system().lower()}/{platform.machine()})"
)
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_ATTEMPTS: Final = 5
_FIRST_WAIT_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 60.0
_LONGEST_WAIT_S: Final = 3600.0
_REDIRECTS: Final = 10
_MAX_ANSWER: Final = 64 * 1024 * 1024


class Transport:
    """Calls to one server; all methods may be used from any thread.

    `pause` waits between attempts and ends the trying when it returns True.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: TlsFiles | None = None,
        clock: Clock | None = None,
        pause: Pause | None = None,
        on_call: OnCall | None = None,
        limits: Limits | None = None,
        pool_size: int = 10,
    ) -> None:
        self.base = api_url(url)
        self.limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._ended = threading.Event()
        self._pause = pause or self._ended.wait
        self._on_call = on_call or (lambda _operation, _outcome: None)
        self._sessions = SessionHolder(tls or TlsFiles(), pool_size=pool_size)

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
        self._sessions.close()

    def end(self) -> None:
        """End calls that run (a long poll, a wait) and all that come: they find no server."""
        self._ended.set()
        self._sessions.end()

    def session(self) -> requests.Session:
        """The session with this server's TLS files, for streams; new after these files change."""
        return self._sessions.get()

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What every request carries, with a new correlation id."""
        return {"User-Agent": USER_AGENT, "X-Request-Id": uuid.uuid4().hex, **(extra or {})}

    def send(self, call: Call) -> Reply:
        """The answer after at most five attempts; raises `ForgeUnreachableError` without one."""
        headers = self.headers(call.headers)
        backoff = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            reply = self._exchange(call, headers, attempt)
            if not _is_retried(reply.status) or attempt == _ATTEMPTS:
                return reply
            # Spread: many runners would come back at the same moment.
            wait = self._asked_wait(reply) or backoff * random.uniform(0.5, 1.0)  # noqa: S311
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
            log.info(
                "%s answered %s, next try in %.1f s (%s)",
                call.operation,
                reply.status,
                wait,
                reply.correlation_id,
            )
            if self._pause(wait):
                return reply
        raise AssertionError("unreachable")

    def _exchange(self, call: Call, headers: Mapping[str, str], attempt: int) -> Reply:
        url = urljoin(self.base, call.path)
        if call.params:
            url = f"{url}?{urlencode(call.params)}"
        for _ in range(_REDIRECTS):
            reply = self._once(call, url, headers, attempt)
            target = reply.headers.get("Location")
            if reply.status not in {307, 308} or not target:
                return reply
            url = _redirected(url, target)
        raise ForgeUnreachableError("the server redirects without end", where=self.base)

    def _once(self, call: Call, url: str, headers: Mapping[str, str], attempt: int) -> Reply:
        limits = self.limits
        if self._ended.is_set():
            raise ForgeUnreachableError("stopped", where=self.base)
        try:
            # As a stream the body goes out in blocks, each with a time limit of its own.
            response = self.session().request(
                call.method,
                url,
                data=io.BytesIO(call.body) if call.body else call.body,
                headers=dict(headers),
                timeout=(limits.connect_s, limits.headers_s),
                allow_redirects=False,
                stream=True,
            )
            with response:
                body = self._read(response)
        except (requests.RequestException, OSError, ValueError) as error:
            self._on_call(call.operation, "unreachable")
            raise _unreachable(error, url) from error
        self._on_call(call.operation, str(response.status_code))
        sent_id = headers.get("X-Request-Id", "")
        answered_id = printable(response.headers.get("X-Request-Id") or sent_id)[:100]
        return Reply(response.status_code, response.headers, body, answered_id, url, attempt)

    def _read(self, response: requests.Response) -> bytes:
        deadline = self._clock.monotonic() + self.limits.whole_s
        parts, size = [], 0
        for part in response.iter_content(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > _MAX_ANSWER:
                raise ValueError("the answer is longer than 64 MiB")
            if self._clock.monotonic() > deadline:
                raise ValueError("the answer takes too long")
        return b"".join(parts)

    def _asked_wait(self, reply: Reply) -> float | None:
        """Seconds that the server asks for, None when it names none."""
        reset = _date(reply.headers.get("RateLimit-ResetTime", ""))
        wait = reset - self._clock.now().timestamp() if reset is not None else 0.0
        if wait <= 0:
            text = reply.headers.get("Retry-After", "").strip()
            wait = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
        return min(wait, _LONGEST_WAIT_S) if wait > 0 else None


def _is_retried(status: int) -> bool:
    return status in _RETRIED or status >= 512


def _date(text: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _redirected(url: str, target: str) -> str:
    found = urljoin(url, target)
    is_downgrade = urlsplit(url).scheme == "https" and urlsplit(found).scheme != "https"
    if is_downgrade or urlsplit(found).scheme not in {"http", "https"}:
        raise ForgeUnreachableError(
            f"the server redirects to {printable(found)[:200]}, where a token must not go",
            where=url,
            hint="Register the runner with the address that it redirects to.",
            is_misconfigured=True,
        )
    return found


def _unreachable(error: Exception, url: str) -> ForgeUnreachableError:
    if isinstance(error, ForgeUnreachableError):
        return error
    is_tls = isinstance(error, requests.exceptions.SSLError)
    root = root_of(error)
    shown = printable(str(root))[:300] or type(root).__name__
    hint = "Does the address answer from this host, and is the network up?"
    if is_tls:
        hint = "Give the authority's certificate with --tls-ca-file, or mend the server's."
    return ForgeUnreachableError(
        f"no answer from the server: {shown}", where=url, hint=hint, is_misconfigured=is_tls
    )
