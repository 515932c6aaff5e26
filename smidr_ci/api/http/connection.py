"""One accepted HTTP connection: who is at its other end, and how long it may take.

uvicorn's protocol, with what it leaves open: a deadline for headers, a bound on connections that
ask nothing, and an end for those that don't read what they asked for.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from smidr_ci.api.listen import peer_uid
from smidr_ci.api.security import Transport
from smidr_ci.api.tls import names_of_certificate

__all__ = ["Listener", "Patience", "Peer", "SmidrProtocol", "Waiting"]


@dataclass(frozen=True)
class Peer:
    """The other end of a connection, as far as the kernel and TLS vouch for it."""

    transport: Transport
    certificate: tuple[str, ...] = ()
    """Names in the client's certificate when one was asked for and checked."""


@dataclass(frozen=True)
class Listener:
    """A bound socket to serve; `tls` is an `ssl.SSLContext`."""

    socket: socket.socket
    tls: Any = None
    hosts: frozenset[str] | None = None
    """What the Host header may name, against DNS rebinding; None for anything."""
    is_door: bool = False
    """A unix socket for jobs of runners."""

    @property
    def is_unix(self) -> bool:
        """Whether peers are processes of this host."""
        return self.socket.family == socket.AF_UNIX


@dataclass(frozen=True)
class Patience:
    """How long clients may take, in seconds."""

    headers_s: float = 10.0
    """From the connection, or the first byte of a request, to the end of its headers."""
    body_s: float = 300.0
    """From the headers to the end of the body."""
    pause_s: float = 30.0
    """Between two pieces of a body."""
    stall_s: float = 600.0
    """Without reading a piece of an answer."""
    flush_s: float = 60.0
    """From an answer's end until the client has read it."""
    keep_alive_s: int = 30
    """From an answer to the next request."""


class Waiting:
    """The connections of all listeners that have no request going: the oldest goes for a new one.

    Half-open connections, however many, so can't keep anybody out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._connections: OrderedDict[SmidrProtocol, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: SmidrProtocol) -> None:
        """Take one in, and close the oldest when there are too many."""
        self._connections[connection] = None
        if len(self._connections) > self._limit:
            oldest, _ = self._connections.popitem(last=False)
            oldest.abort()

    def discard(self, connection: SmidrProtocol) -> None:
        """It has a request now, or is gone."""
        self._connections.pop(connection, None)


class SmidrProtocol(H11Protocol):
    """The scope's state gets `peer`, `listener` and `connection`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        loop: asyncio.AbstractEventLoop,
        *,
        listener: Listener,
        waiting: Waiting,
        patience: Patience,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state={}, _loop=loop)
        self._listener = listener
        self._waiting = waiting
        self.patience = patience
        self._deadline: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own narrowing
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.app_state = {
            "peer": _peer_of(transport, self._listener),
            "listener": self._listener,
            "connection": self,
        }
        self._arm(self.patience.headers_s)
        self._waiting.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._disarm()
        self._unset_keepalive_if_required()
        self._waiting.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self._has_request:
            self._disarm()
            self._waiting.discard(self)
        elif self._deadline is None:
            self._arm(self.patience.headers_s)

    def on_response_complete(self) -> None:
        """The answer went to the transport; the client has still to read it."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm(self.patience.flush_s)
        elif not self._has_request:
            self._waiting.add(self)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while: close, also when the last answer was never read."""
        super().timeout_keep_alive_handler()
        self._arm(self.patience.flush_s)

    @property
    def _has_request(self) -> bool:
        # uvicorn's `cycle` is None before the first request, whatever its annotation says.
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _peer_of(transport: asyncio.Transport, listener: Listener) -> Peer:
    if listener.is_unix:
        uid = peer_uid(transport.get_extra_info("socket"))
        return Peer(Transport.unix(uid, is_door=listener.is_door))
    name = transport.get_extra_info("peername")
    return Peer(
        Transport.tcp(str(name[0]) if name else ""),
        names_of_certificate(transport.get_extra_info("peercert")),
    )
