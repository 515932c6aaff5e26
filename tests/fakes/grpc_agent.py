"""An agent without builds behind the real gRPC server, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from smidr_ci.api.bundles import receive_bundle
from smidr_ci.api.grpc.client import GrpcClient
from smidr_ci.api.grpc.endpoint import Authenticator
from smidr_ci.api.grpc.listeners import TcpListener, UnixListener
from smidr_ci.api.grpc.server import GrpcServer
from smidr_ci.api.operations import Operations
from smidr_ci.api.security import Security
from smidr_ci.api.tls import ServerTls
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.config.api import Api
from smidr_ci.home import Home
from tests.fakes.build_service import FakeBuildService
from tests.fakes.http_agent import FakePlaces
from tests.fakes.sockets import address_for


class GrpcAgent:
    """Serves a home's `grpc.sock`, and loopback TCP with real tokens; a context manager."""

    def __init__(
        self,
        home: Home,
        *,
        port: int = 0,
        tls: ServerTls | None = None,
        settings: Api | None = None,
        access: Authenticator | None = None,
        handshake_timeout_s: float = 10,
    ) -> None:
        self.home = home
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._short_socket = address_for(self, home.grpc_socket)
        self.agent = FakeBuildService(home)
        self._database = Database(home.database)
        self.tokens = TokenStore(self._database)
        self.operations = Operations(
            self.agent,
            self.agent.store,
            lambda: FakePlaces(home),
            partial(receive_bundle, home),
        )
        self._pool = ThreadPoolExecutor(4)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edge")
        self.server = GrpcServer(
            self.operations,
            access or Security(self.tokens, settings or Api(), os.geteuid()),
            (UnixListener(home.grpc_socket), TcpListener(f"127.0.0.1:{port}", tls)),
            is_serving=lambda: not self.agent.is_draining,
            pool=self._pool,
            handshake_timeout_s=handshake_timeout_s,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self.server.start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._pool.shutdown()
        self.agent.close()
        self._database.close()

    async def _end(self) -> None:
        await self.server.stop(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # gRPC's own, which end a moment after the calls that they are for
            await asyncio.wait(others, timeout=10)

    @property
    def socket(self) -> str:
        """The address of the unix socket, of any client of gRPC."""
        return f"unix:{self._short_socket}"

    @property
    def address(self) -> str:
        """The address of the TCP listener."""
        return self.server.listening[1]

    @property
    def port(self) -> int:
        """Of the TCP listener."""
        return int(self.address.rpartition(":")[2])

    def client(self, **options: Any) -> GrpcClient:
        """A client of the unix socket; the test closes it."""
        return GrpcClient(f"unix:{self.home.grpc_socket}", **options)

    def write(self, build_id: str, text: bytes) -> None:
        """Add to a build's console."""
        with self.agent.log_of(build_id).open("ab") as file:
            file.write(text)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have the loop do it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)
