"""All that an agent listens on, in one asyncio loop of one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from smidr_ci.api.addresses import Endpoint, Listening
from smidr_ci.api.github_steps import GitHubSteps
from smidr_ci.api.grpc.listeners import TcpListener, UnixListener
from smidr_ci.api.grpc.server import GrpcServer
from smidr_ci.api.health import Health
from smidr_ci.api.http.app import make_app
from smidr_ci.api.http.connection import Listener
from smidr_ci.api.http.origin import loopback_hosts
from smidr_ci.api.http.server import HttpServer
from smidr_ci.api.http.webhook_routes import Webhooks
from smidr_ci.api.listen import bind_door, bind_tcp, bind_unix
from smidr_ci.api.operations import Operations
from smidr_ci.api.security import Security
from smidr_ci.forges.github.runners.door import Door
from smidr_ci.home import Home

__all__ = ["Edge"]

_WORKERS: Final = 16
_START_S: Final = 30.0
_STOP_S: Final = 10.0

Result = TypeVar("Result")


@dataclass
class Edge:
    """The HTTP and gRPC servers of an agent."""

    home: Home
    operations: Operations
    security: Security
    health: Health
    metrics: Callable[[], bytes]
    listening: Listening
    webhooks: Webhooks | None = None
    github_steps: GitHubSteps | None = None
    door: Door | None = None

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="edge")
        self._thread = threading.Thread(target=self._loop.run_forever, name="edge", daemon=True)

    def start(self) -> tuple[str, ...]:
        """Listen; the addresses. Raises `SmidrError` when one can't be had."""
        listeners = [Listener(bind_unix(self.home.socket))]
        shown = [f"unix:{self.home.socket}"]
        if self.door is not None:
            listeners.append(Listener(bind_door(self.door), is_door=True))
            shown.append(f"unix:{self.door.path}")
        scheme = "https" if self.listening.tls else "http"
        for endpoint in self.listening.http:
            listener = self._tcp_listener(endpoint)
            listeners.append(listener)
            shown.append(f"{scheme}://{_name_of(endpoint, listener)}")
        self._thread.start()
        self._http, self._grpc = self._await(self._start(listeners))
        return (*shown, *self._grpc.listening)

    def stop(self) -> None:
        """Stop listening; whoever follows something may come back to the next agent."""

        async def stop() -> None:
            await asyncio.gather(self._http.stop(), self._grpc.stop())

        self._await(stop(), _STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.home.socket.unlink(missing_ok=True)
        if self.door is not None:
            self.door.path.unlink(missing_ok=True)

    def _tcp_listener(self, endpoint: Endpoint) -> Listener:
        tls = self.listening.tls
        hosts = loopback_hosts((endpoint.host,)) if endpoint.is_loopback else None
        return Listener(bind_tcp(endpoint), tls.context if tls else None, hosts)

    async def _start(self, listeners: list[Listener]) -> tuple[HttpServer, GrpcServer]:
        app = make_app(
            self.operations,
            self.security,
            self._pool,
            self.health,
            self.metrics,
            webhooks=self.webhooks,
            github_steps=self.github_steps,
        )
        http = HttpServer(app, listeners)
        tls = self.listening.tls
        grpc = GrpcServer(
            self.operations,
            self.security,
            [
                UnixListener(self.home.grpc_socket),
                *(TcpListener(str(endpoint), tls) for endpoint in self.listening.grpc),
            ],
            is_serving=lambda: not self.health.problems(),
            pool=self._pool,
        )
        await http.start()
        await grpc.start()
        return http, grpc

    def _await(self, work: Coroutine[Any, Any, Result], timeout_s: float = _START_S) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)


def _name_of(endpoint: Endpoint, listener: Listener) -> str:
    port = listener.socket.getsockname()[1]
    return str(Endpoint(endpoint.host, port))
