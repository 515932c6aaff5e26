"""One HTTP request to an agent, with the standard library alone: every command pays for imports."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from smidr_ci.api.sockets import connect_unix
from smidr_ci.errors import (
    AgentUnreachableError,
    BusyError,
    ConfigError,
    ConflictError,
    FailureKind,
    ForbiddenError,
    HostError,
    InternalError,
    LayerError,
    NotFoundError,
    SmidrError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["Answer", "Wire", "quoted"]

_PIECE_BYTES: Final = 256 * 1024
_MAX_JSON_BYTES: Final = 256 << 20
_CONNECT_S: Final = 10.0
_FAILED: Final = (OSError, http.client.HTTPException)
_CLASSES: Final[Mapping[int, type[SmidrError]]] = {
    400: UsageError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    429: BusyError,
}


@dataclass(frozen=True)
class Answer:
    """An answer without an error, whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    body: http.client.HTTPResponse
    where: str

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes; raises `AgentUnreachableError` when it breaks off."""
        try:
            while piece := self.body.read1(_PIECE_BYTES):
                yield piece
            if self.body.length:  # what Content-Length promised and did not come
                raise http.client.IncompleteRead(b"", self.body.length)
        except _FAILED as error:
            raise _unreachable(self.where, error) from error

    def lines(self) -> Iterator[bytes]:
        """The body's lines without their ends, as they come; the same errors."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole

    def json(self) -> Any:  # noqa: ANN401 - whatever the agent sends
        """The whole body, read as JSON."""
        parts, size = [], 0
        for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > _MAX_JSON_BYTES:
                raise InternalError("the agent's answer is too long", where=self.where)
        try:
            return json.loads(b"".join(parts))
        except ValueError as error:
            raise InternalError("the agent's answer is no JSON", where=self.where) from error


class Wire:
    """Where an agent is and how it is asked; thread-safe, one connection per request.

    `address` is the path of a unix socket, or `http://HOST:PORT` or `https://HOST:PORT`.
    """

    def __init__(
        self,
        address: Path | str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.where = f"unix:{address}" if isinstance(address, Path) else address
        self._address = address
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        if isinstance(address, str):
            _host_and_port(address)

    @contextmanager
    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = 60.0,
    ) -> Iterator[Answer]:
        """Send a request; the answer is good inside of the block.

        `timeout_s` is for each wait. Raises what the agent says, or `AgentUnreachableError`.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        sent = {**self._headers, "Connection": "close", **(headers or {})}
        raw = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            raw = json.dumps(body).encode()
        connection = self._connect(timeout_s)
        answer: http.client.HTTPResponse | None = None
        try:
            try:
                # Who refuses early may close before all is sent; the answer can be there still.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, raw, sent)
                answer = connection.getresponse()
            except _FAILED as error:
                raise _unreachable(self.where, error) from error
            found = Answer(answer.status, answer.headers, answer, self.where)  # type: ignore[arg-type] # a Message is one in all but name
            if answer.status >= 400:
                raise _error_in(found)
            yield found
        finally:
            if answer is not None:
                answer.close()  # it holds the socket longer than the connection does
            connection.close()

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        try:
            if isinstance(self._address, Path):
                connection = http.client.HTTPConnection("localhost")
                connection.sock = connect_unix(self._address, _CONNECT_S)
            else:
                connection = self._connect_tcp(self._address)
        except _FAILED as error:
            raise _unreachable(self.where, error) from error
        connection.sock.settimeout(timeout_s)
        return connection

    def _connect_tcp(self, address: str) -> http.client.HTTPConnection:
        scheme, host, port = _host_and_port(address)
        connection: http.client.HTTPConnection
        if scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=_CONNECT_S, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_S)
        connection.connect()
        # Who follows a quiet stream must notice in the end that the other host is gone.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        return connection


def quoted(text: str) -> str:
    """A piece of a path in a URL; slashes stay."""
    return quote(text.encode("utf-8", "surrogateescape"))


def _host_and_port(address: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise UsageError(
            f"{address[:120]!r} is no address of an agent",
            hint="Write http://HOST:PORT or https://HOST:PORT.",
        )
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _unreachable(where: str, error: Exception) -> AgentUnreachableError:
    reason = getattr(error, "strerror", None) or str(error) or "the connection was closed"
    return AgentUnreachableError(
        f"the agent does not answer: {reason}",
        where=where,
        hint="Start one with `smidr daemon`, or see with `smidr daemon status` what it does.",
    )


def _error_in(answer: Answer) -> SmidrError:
    """The agent's error as the exception that it was there."""
    try:
        raw = answer.json()["error"]
        kind = FailureKind(raw["kind"])
        message, where, hint = (str(raw[name]) for name in ("message", "where", "hint"))
    except (SmidrError, LookupError, TypeError, ValueError):
        return InternalError(
            f"the answer has status {answer.status} and is not an agent's", where=answer.where
        )
    made = _class_of(answer.status, kind)(message, where=where, hint=hint, kind=kind)
    if isinstance(made, BusyError):
        after = answer.headers.get("Retry-After", "")
        made.retry_after_s = float(after) if after.isdigit() else None
    return made


def _class_of(status: int, kind: FailureKind) -> type[SmidrError]:
    if status == 422:
        return {FailureKind.CONFIG: ConfigError, FailureKind.LAYERS: LayerError}.get(
            kind, UsageError
        )
    if status == 503:
        return BusyError if kind is FailureKind.HOST else HostError
    return _CLASSES.get(status, InternalError)
