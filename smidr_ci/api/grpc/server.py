"""The agent's gRPC server: an asyncio part of the agent, beside its HTTP server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

import grpc
import grpc.aio

from smidr_ci.api.grpc.endpoint import Authenticator, Endpoint
from smidr_ci.api.grpc.health import health_handlers, reflection_handlers
from smidr_ci.api.grpc.listeners import Bound, TcpListener, UnixListener
from smidr_ci.api.grpc.methods import MAX_START_BYTES, SERVICE, Methods
from smidr_ci.api.operations import Operations

__all__ = ["GrpcServer"]

_LOG: Final = logging.getLogger(__name__)
_MAX_CALLS: Final = 2000
"""At once, of all clients; more are refused with RESOURCE_EXHAUSTED."""
_END_TIMEOUT_S: Final = 5.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_START_BYTES),
    ("grpc.max_send_message_length", -1),  # what is sent is bounded where it is made
    # A small message that unpacks to gigabytes would be unpacked before anybody measures it.
    ("grpc.per_message_decompression", 0),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_metadata_size", 16 * 1024),
    # Who is gone without a word goes after so long.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 120_000),
    # Clients may ask for signs of life too, to notice a dead agent.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 5),
    # Two agents must not share a port.
    ("grpc.so_reuseport", 0),
)


class GrpcServer:
    """Serves `operations` on `listeners`; all methods belong to one asyncio loop.

    It does not judge listeners: whether an address may be served without TLS is the caller's
    matter. `is_serving` is what the health service says (it may block, `pool` asks it), `pool` is
    for everything that blocks; the caller shuts it down after `stop`. Who connects and says
    nothing is cut off after `handshake_timeout_s`.
    """

    def __init__(
        self,
        operations: Operations,
        authenticator: Authenticator,
        listeners: Sequence[UnixListener | TcpListener],
        *,
        is_serving: Callable[[], bool],
        pool: Executor,
        handshake_timeout_s: float = 10.0,
    ) -> None:
        self._operations = operations
        self._listeners = listeners
        self._is_serving = is_serving
        self._pool = pool
        self._handshake_timeout_s = handshake_timeout_s
        self._bound: list[Bound] = []
        self._server: grpc.aio.Server | None = None
        self._endpoint = Endpoint(authenticator, pool)

    @property
    def listening(self) -> tuple[str, ...]:
        """Addresses, such as `grpc://127.0.0.1:50051`, `grpcs://...` or `unix:/path`."""
        return tuple(bound.shown for bound in self._bound)

    async def start(self) -> None:
        """Listen and serve; raises `HostError` when an address can't be taken, and takes none."""
        handshake = ("grpc.server_handshake_timeout_ms", round(self._handshake_timeout_s * 1000))
        options = (*_OPTIONS, handshake)
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MAX_CALLS)
        endpoint = self._endpoint
        services = (
            (SERVICE, Methods(self._operations, self._pool).handlers(endpoint)),
            health_handlers(endpoint, self._is_serving, self._pool),
            reflection_handlers(endpoint),
        )
        server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services)
        )
        self._server = server
        try:
            for listener in self._listeners:
                self._bound.append(listener.bind(server))
            await server.start()
        except BaseException:
            await self.stop(0)
            raise
        for address in self.listening:
            _LOG.info("gRPC listens on %s", address)

    async def stop(self, grace_s: float = 2.0) -> None:
        """Take no new calls, let those that run go on for so long, then end them."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)
            # Calls that were cut off still give back what they hold, in `pool` too.
            await self._endpoint.ended(_END_TIMEOUT_S)
        for bound in self._bound:
            bound.release()
        self._bound.clear()
