"""What every request passes before the app sees it, and every answer before it goes out.

Where it comes from, who asks and how often, how big its body is and how slowly it comes. Nothing
of a body is kept before the caller is known.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smidr_ci.api.callers import Caller
from smidr_ci.api.http.connection import Patience, Peer
from smidr_ci.api.http.errors import answer_for, error_answer
from smidr_ci.api.http.origin import check_origin
from smidr_ci.api.limits import MAX_BUNDLE_BYTES, MAX_CONFIG_BYTES
from smidr_ci.api.security import Transport
from smidr_ci.errors import (
    BusyError,
    ForbiddenError,
    SmidrError,
    TooLargeError,
    UnauthenticatedError,
)

__all__ = ["OPEN_PATHS", "WEBHOOK_PATH", "Access", "Guard", "Limits"]

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/api/v1/openapi.json"})
"""What anybody may read: it says nothing of any build."""
WEBHOOK_PATH: Final = "/webhooks/github"
"""Where anybody may send to: whoever takes it looks at its signature first."""
_ORDERS: Final = frozenset(
    {"/api/v1/builds", "/api/v1/github/steps", "/api/v1/github/uploads", "/start_build"}
)
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_DRAIN_BYTES: Final = 1 << 20
_DRAIN_S: Final = 1.0


class Access(Protocol):
    """Tells who calls; `security.Security` is one. It may block."""

    def authenticate(
        self,
        token: str | None,
        *,
        transport: Transport,
        certificate: tuple[str, ...] | None = None,
    ) -> Caller:
        """The caller; raises `UnauthenticatedError` or `BusyError`."""


@dataclass(frozen=True)
class Limits:
    """How much is taken at once, of everybody together."""

    max_requests: int = 512
    """At work at the same time, streams too."""
    max_requests_of_one: int = 256
    """Of these, of one caller."""
    max_order_bytes: int = MAX_BUNDLE_BYTES * 4 // 3 + 7 * MAX_CONFIG_BYTES
    """A bundle in base64, and a config in JSON."""
    max_body_bytes: int = 64 * 1024
    """Of everything but an order."""
    max_bodies_bytes: int = 256 << 20
    """Of all bodies that are in memory."""
    max_webhook_bytes: int = 25 << 20
    """Of a webhook; GitHub sends nothing bigger."""
    max_webhooks: int = 4
    """At the same time: anybody can send them, and orders need the memory."""


class Guard:
    """An ASGI middleware; the scope's state gets `caller` unless the path is open to anybody."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        pool: Executor,
        patience: Patience | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._pool = pool
        self._patience = patience or Patience()
        self._limits = limits or Limits()
        self._running = 0
        self._running_of: Counter[str] = Counter()
        self._bodies_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        send = _with_security_headers(send)
        if scope["type"] != "http":
            return
        name = ""
        try:
            check_origin(scope)
            if scope["path"] == WEBHOOK_PATH:
                name = WEBHOOK_PATH
            elif scope["path"] not in OPEN_PATHS:
                scope["state"]["caller"] = caller = await self._caller(scope)
                name = caller.name
            self._enter(name)
        except SmidrError as error:
            await _refuse(error, scope, receive, send)
            return
        try:
            await self._with_body(scope, receive, send)
        finally:
            self._leave(name)

    async def _caller(self, scope: Scope) -> Caller:
        peer: Peer = scope["state"]["peer"]
        token = _token(Headers(scope=scope))

        def authenticate() -> Caller:
            return self._access.authenticate(
                token, transport=peer.transport, certificate=peer.certificate or None
            )

        if peer.transport.peer_uid is None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, authenticate)
        try:
            return authenticate()
        except UnauthenticatedError as error:
            # No credential would help at a unix socket.
            raise ForbiddenError(error.message, hint=error.hint) from error

    def _enter(self, name: str) -> None:
        if self._running >= self._limits.max_requests:
            raise BusyError("the agent answers as many requests as it can", hint="Try again soon.")
        is_webhook = name == WEBHOOK_PATH
        most = self._limits.max_webhooks if is_webhook else self._limits.max_requests_of_one
        if self._running_of[name] >= most:
            error = BusyError(f"{name or 'nobody'} has too many requests open at once")
            error.retry_after_s = 5.0
            raise error
        self._running += 1
        self._running_of[name] += 1

    def _leave(self, name: str) -> None:
        self._running -= 1
        self._running_of[name] -= 1
        if not self._running_of[name]:
            del self._running_of[name]

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_order = scope["method"] == "POST" and scope["path"] in _ORDERS
        limit = self._limits.max_order_bytes if is_order else self._limits.max_body_bytes
        if scope["path"] == WEBHOOK_PATH:
            limit = self._limits.max_webhook_bytes
        body = _Body(self, limit)
        try:
            try:
                await body.read(scope, receive, self._patience)
            except TimeoutError:
                answer = answer_for(408, "the request came too slowly")
                await _last(answer, scope, receive, send)
                return
            except SmidrError as error:
                await _refuse(error, scope, receive, send)
                return
            if not body.is_cut:
                await self._app(scope, body.replay(receive), send)
        finally:
            self._bodies_bytes -= body.taken

    def take_bytes(self, count: int) -> None:
        """Count what a body adds to memory; raises `BusyError`."""
        if self._bodies_bytes + count > self._limits.max_bodies_bytes:
            raise BusyError("the agent receives as many orders as it can", hint="Try again soon.")
        self._bodies_bytes += count


class _Body:
    """One request's body, read whole before anybody looks at it."""

    def __init__(self, guard: Guard, limit: int) -> None:
        self._guard = guard
        self._limit = limit
        self._parts: list[bytes] = []
        self.taken = 0
        self.is_cut = False
        """The client has gone."""

    async def read(self, scope: Scope, receive: Receive, patience: Patience) -> None:
        """Raises `TooLargeError` as soon as it is known, `TimeoutError`, `BusyError`."""
        self._check(_announced(Headers(scope=scope)))
        async with asyncio.timeout(patience.body_s):
            has_more = True
            while has_more:
                async with asyncio.timeout(patience.pause_s):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    self.is_cut = True
                    return
                self._add(message.get("body", b""))
                has_more = message.get("more_body", False)

    def replay(self, receive: Receive) -> Receive:
        """A `receive` that gives the body in one piece, then whatever comes."""
        parts = [b"".join(self._parts)]
        self._parts.clear()

        async def replayed() -> Message:
            if parts:
                return {"type": "http.request", "body": parts.pop(), "more_body": False}
            return await receive()

        return replayed

    def _add(self, part: bytes) -> None:
        self._check(self.taken + len(part))
        self._guard.take_bytes(len(part))
        self.taken += len(part)
        self._parts.append(part)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLargeError(f"the request has a body of more than {self._limit} bytes")


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


def _token(headers: Headers) -> str | None:
    given = headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise UnauthenticatedError(
            "the Authorization header is not understood", hint="Send `Bearer` and a token."
        )
    return token.strip()


async def _refuse(error: SmidrError, scope: Scope, receive: Receive, send: Send) -> None:
    await _last(error_answer(error), scope, receive, send)


async def _last(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose body nobody wants."""
    if not await _drained(receive):
        # What is still under way makes the connection of no use, and may cost the client the
        # answer: the kernel resets a connection that is closed with unread bytes.
        answer.headers["Connection"] = "close"
    await answer(scope, receive, send)


async def _drained(receive: Receive) -> bool:
    """Whether the rest of the body came soon and was short; it is thrown away."""
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while size <= _DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return bool(message["type"] == "http.request")
    except TimeoutError:
        pass
    return False


def _with_security_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            known = {name.lower() for name, _ in headers}
            headers += [pair for pair in _SECURITY_HEADERS if pair[0] not in known]
            message = {**message, "headers": headers}
        await send(message)

    return wrapped
