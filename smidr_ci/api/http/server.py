"""Serves an ASGI app from bound sockets inside a running asyncio loop.

uvicorn's protocol without uvicorn's `Server`: that one installs signal handlers and wakes ten
times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from smidr_ci.api.http.connection import Listener, Patience, SmidrProtocol, Waiting

__all__ = ["HttpServer"]

_MAX_WAITING: Final = 128
_MAX_HEADERS_BYTES: Final = 16 * 1024
_BACKLOG: Final = 512
_LAST_LOOK_S: Final = 2.0


class HttpServer:
    """Some listeners with one app; belongs to the loop that `start` is awaited in."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - an ASGI app
        listeners: Sequence[Listener],
        patience: Patience | None = None,
        *,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self._patience = patience or Patience()
        self._config = Config(
            app,
            lifespan="off",
            ws="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            workers=1,
            timeout_keep_alive=self._patience.keep_alive_s,
            h11_max_incomplete_event_size=_MAX_HEADERS_BYTES,
        )
        self._listeners = listeners
        self._waiting = Waiting(max_waiting)
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Listen; returns when all sockets accept."""
        self._config.load()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            make = partial(
                SmidrProtocol,
                self._config,
                self._state,
                loop,
                listener=listener,
                waiting=self._waiting,
                patience=self._patience,
            )
            server = await loop.create_server(
                make,
                sock=listener.socket,
                ssl=listener.tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=self._patience.headers_s if listener.tls else None,
            )
            self._servers.append(server)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Accept nothing new, let short answers end, and break streams off.

        Whoever follows a stream sees it broken and not ended, and may come back.
        """
        await self._close_listeners()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._wait_for_tasks(grace_s)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._wait_for_tasks(_LAST_LOOK_S)
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.sleep(0)  # a transport that was aborted closes its socket in the next round

    async def _close_listeners(self) -> None:
        """Returns when all that were accepted are among the connections.

        A server that is closed loses those that it accepted in the loop's same round, and leaves
        their sockets open (CPython 3.11). So it stops to accept first.
        """
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):  # the task that accepts, its transport, the protocol that gets it
            await asyncio.sleep(0)
        for server in self._servers:
            server.close()

    async def _wait_for_tasks(self, seconds: float) -> None:
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=seconds)
