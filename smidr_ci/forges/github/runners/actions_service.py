"""The Actions service behind runner scale sets: how to be let in, and how it answers.

Facts: github.com/actions/scaleset, GitHub's own client (public preview): no description exists.
"""

from __future__ import annotations

import base64
import json
import logging
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from smidr_ci import __version__
from smidr_ci.clock import Clock
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.exchange import Call, Reply
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.runners.remote import RemoteRunners
from smidr_ci.forges.github.sender import Authorization, OnCall, Sender
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport
from smidr_ci.text import printable

__all__ = ["API_VERSION", "ActionsService", "ServiceError", "checked_url", "service_failure"]

log = logging.getLogger(__name__)

API_VERSION: Final = "6.0-preview"
_ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_RENEW_S: Final = 60.0
_SHORTEST_LIFE_S: Final = 30.0
_UNKNOWN_LIFE_S: Final = 600.0
_LONGEST_LIFE_S: Final = 6 * 3600.0
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_NOT_YET: Final = frozenset({401, 403})
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class ServiceError(ForgeError):
    """The service refuses; `type_name` is its own word for why, such as `AgentExistsException`."""

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", status: int = 0, type_name: str = ""
    ) -> None:
        super().__init__(message, where=where, hint=hint, status=status)
        self.type_name = type_name

    def is_a(self, name: str) -> bool:
        """Whether its word is this one, with whatever stands around it."""
        return name in self.type_name


@dataclass(frozen=True)
class _Entry:
    """Where the service is for us, and with what."""

    url: str
    authorization: str = field(repr=False)
    until: float
    """When to get another, by the monotonic clock."""


class ActionsService:
    """Thread-safe. All methods raise `ServiceError` for a refusal, else `ForgeError`."""

    def __init__(
        self,
        site: Site,
        remote: RemoteRunners,
        sender: Sender,
        transport: Transport,
        *,
        clock: Clock,
        pause: Pause,
        on_call: OnCall | None = None,
    ) -> None:
        """`pause` waits between tries; when it is True no more are made."""
        self.site = site
        self.scale_set_id = 0
        """For the User-Agent, once it is known."""
        self._remote = remote
        self._sender = sender
        self._transport = transport
        self._clock = clock
        self._pause = pause
        self._on_call = on_call or (lambda _operation, _outcome: None)
        self._lock = threading.Lock()
        self._entry: _Entry | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        action: str,
        params: Mapping[str, str | int] | None = None,
        body: object = None,
        attempts: int = _ATTEMPTS,
    ) -> Reply:
        """One call below the service's address; `action` ends the sentence "can't ...".

        `attempts` is 1 for what must not be done twice.
        """
        reply = self._tried(method, path, params or {}, body, attempts)
        if not reply.is_success:
            raise service_failure(reply, action)
        return reply

    def call_with(self, authorization: str, method: str, path: str, body: object) -> Reply:
        """One call with a token of a session's; any answer. Raises `ForgeUnreachableError`."""
        entry = replace(self._enter(), authorization=authorization)
        return self._once(method, path, {}, body, entry)

    def user_agent(self) -> str:
        """JSON, as GitHub asks for it from clients of scale sets."""
        told = {
            "system": "smidr",
            "version": __version__,
            "commit_sha": "",
            "scale_set_id": self.scale_set_id,
            "subsystem": f"python-{platform.python_version()}",
            "build_version": __version__,
            "build_commit_sha": "",
            "kind": "scaleset",
        }
        return json.dumps(told)

    def _tried(
        self, method: str, path: str, params: Mapping[str, str | int], body: object, attempts: int
    ) -> Reply:
        wait, has_renewed, attempt = _FIRST_WAIT_S, False, 0
        while True:
            entry = self._enter()
            attempt += 1
            try:
                reply = self._once(method, path, params, body, entry)
            except ForgeUnreachableError as error:
                if attempt >= attempts or error.is_misconfigured:
                    raise
            else:
                if reply.status == 401 and not has_renewed:
                    has_renewed, attempt = True, attempt - 1
                    self._forget(entry)
                    continue
                if reply.status not in _PASSING or attempt >= attempts:
                    return reply
            if self._pause(wait):
                raise ForgeUnreachableError("stopped", where=entry.url)
            wait = min(wait * 2, _LONGEST_WAIT_S)

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        body: object,
        entry: _Entry,
    ) -> Reply:
        query = urlencode({**params, "api-version": API_VERSION})
        headers = {
            "Accept": f"application/json; api-version={API_VERSION}",
            "Content-Type": "application/json",
            "User-Agent": self.user_agent(),
            "Authorization": entry.authorization,
        }
        raw = None if body is None else json.dumps(body).encode()
        operation = f"{method.lower()}-scale-set"
        url = f"{entry.url}/{path}?{query}"
        try:
            reply = self._transport.exchange(method, url, headers, raw)
        except ForgeUnreachableError:
            self._on_call(operation, "unreachable")
            raise
        self._on_call(operation, str(reply.status))
        return reply

    def _enter(self) -> _Entry:
        with self._lock:
            if self._entry is None or self._entry.until <= self._clock.monotonic():
                self._entry = self._registered()
            return self._entry

    def _forget(self, entry: _Entry) -> None:
        with self._lock:
            if self._entry is entry:
                self._entry = None

    def _registered(self) -> _Entry:
        """By a registration token, which may not be known everywhere at once."""
        token = self._remote.registration_token()
        authorization = Authorization(f"RemoteAuth {token}", "registration")
        url = self.site.web + (f"/{self.site.repository}" if self.site.name else "")
        url = url if self.site.name else f"{url}/{self.site.owner}"
        body = {"url": url, "runner_event": "register"}
        call = Call("POST", "/actions/runner-registration", json=body)
        reply = self._sender.send(call, authorization)
        wait = _FIRST_WAIT_S
        for _ in range(_ATTEMPTS - 1):
            if reply.status not in _NOT_YET:
                break
            if self._pause(wait):
                raise ForgeUnreachableError("stopped", where=self.site.web)
            reply = self._sender.send(call, authorization)
            wait *= 2
        if not reply.is_success:
            raise service_failure(reply, "register for runner scale sets")
        return self._entry_of(reply)

    def _entry_of(self, reply: Reply) -> _Entry:
        found = reply.object()
        token = found.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ForgeError("the answer has no usable token", where=reply.url)
        url = checked_url(found.get("url"), self.site).rstrip("/")
        life = _life_of(token, _server_time(reply) or self._clock.now())
        until = self._clock.monotonic() + max(life - _RENEW_S, _SHORTEST_LIFE_S)
        return _Entry(url, f"Bearer {token}", until)


def checked_url(url: object, site: Site) -> str:
    """An address that GitHub tells us to use with our token; raises `ForgeError` for an open one.

    Plain http is for a GitHub on this very host.
    """
    text = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    is_local = parts.scheme == "http" and host in _LOCAL and site.web.startswith("http://")
    is_good = host and text.isprintable() and " " not in text and parts.username is None
    if not is_good or not (parts.scheme == "https" or is_local):
        raise ForgeError(
            f"GitHub names an address of no use: {printable(text)[:100]!r}", where=site.web
        )
    return text


def service_failure(reply: Reply, action: str) -> ServiceError:
    """The error for an answer that is none of the good ones; some have no JSON but text."""
    type_name, said = "", ""
    try:
        found: Any = json.loads(reply.body[:100_000])
    except (ValueError, RecursionError):
        found = None
        said = printable(reply.body[:300].decode("utf-8", "replace")).strip()
    if isinstance(found, dict):
        type_name = printable(str(found.get("typeName") or ""))[:200]
        said = printable(str(found.get("message") or ""))[:500]
    ids = {name: reply.headers.get(name, "") for name in ("ActivityId", "X-GitHub-Request-Id")}
    named = ", ".join(f"{name} {printable(value)[:80]}" for name, value in ids.items() if value)
    return ServiceError(
        f"can't {action}: GitHub answers {reply.status}{': ' if said else ''}{said}"
        + (f" ({named})" if named else ""),
        where=reply.url,
        hint=_HINTS.get(reply.status, ""),
        status=reply.status,
        type_name=type_name,
    )


_HINTS: Final = {
    401: "Is the token or the App's key still valid, and this host's clock right?",
    403: "Making runners needs more rights than checks do; see docs/github-app.md.",
}


def _life_of(token: str, now: datetime) -> float:
    """Seconds that a JWT is good for; its signature is not ours to check."""
    try:
        payload = token.split(".")[1]
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        expires = float(json.loads(raw)["exp"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return _UNKNOWN_LIFE_S
    return min(max(expires - now.timestamp(), 0.0), _LONGEST_LIFE_S)


def _server_time(reply: Reply) -> datetime | None:
    """Its clock made the token; ours may be wrong."""
    try:
        return parsedate_to_datetime(reply.headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
