"""An agent without builds behind the real HTTP server, on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from smidr_ci.api.addresses import Endpoint
from smidr_ci.api.bundles import receive_bundle
from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.github_steps import GitHubSteps
from smidr_ci.api.health import Health
from smidr_ci.api.http.app import make_app
from smidr_ci.api.http.connection import Listener, Patience
from smidr_ci.api.http.guard import Access, Limits
from smidr_ci.api.http.origin import loopback_hosts
from smidr_ci.api.http.server import HttpServer
from smidr_ci.api.http.webhook_routes import Webhooks
from smidr_ci.api.listen import bind_door, bind_tcp, bind_unix
from smidr_ci.api.operations import Operations
from smidr_ci.api.security import Security, Transport
from smidr_ci.api.tls import load_server_tls
from smidr_ci.api.tokens import TokenStore
from smidr_ci.artifacts.collect import collect
from smidr_ci.builds.database import Database
from smidr_ci.builds.model import ArtifactRecord, BuildRecord
from smidr_ci.builds.order import Order
from smidr_ci.clock import SystemClock
from smidr_ci.config.api import Api
from smidr_ci.errors import BusyError, EngineError
from smidr_ci.files import make_marked_dir
from smidr_ci.forges.github.runners.door import Door
from smidr_ci.home import Home
from tests.fakes.build_service import FakeBuildService

ADMIN = Caller("uid 0", Scope.ADMIN, is_local=True)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; `AssertionError` when it does not come true."""
    clock, pause = SystemClock(), threading.Event()
    deadline = clock.monotonic() + seconds
    while not condition():
        assert clock.monotonic() < deadline, "it did not come true"
        pause.wait(0.01)


@dataclass(frozen=True)
class FakePlaces:
    """Implements `operations.Places` for one home."""

    home: Home

    @property
    def artifacts_root(self) -> Path:
        return self.home.artifacts

    def control_of(self, build_id: str) -> Path:
        return self.home.builds / build_id / "control"


class QuietAgent(FakeBuildService):
    """Keeps consoles where `FakePlaces` has them."""

    def submit(self, order: Order, source: Path | None = None) -> BuildRecord:
        record = super().submit(order, source)
        make_marked_dir(self.home.builds / record.build_id)
        return record

    def log_of(self, build_id: str) -> Path:
        return FakePlaces(self.home).control_of(build_id) / "console.log"


class AnybodyIs:
    """Implements `guard.Access`: everybody is the same caller."""

    def __init__(self, caller: Caller = ADMIN) -> None:
        self.caller = caller

    def authenticate(
        self,
        token: str | None,  # noqa: ARG002 - the port's form
        *,
        transport: Transport,  # noqa: ARG002 - the port's form
        certificate: tuple[str, ...] | None = None,  # noqa: ARG002 - the port's form
    ) -> Caller:
        return self.caller


@dataclass(frozen=True)
class AsUser:
    """Implements `guard.Access`: `security` sees every peer of the unix socket as this user."""

    security: Security
    uid: int

    def authenticate(
        self,
        token: str | None,
        *,
        transport: Transport,
        certificate: tuple[str, ...] | None = None,
    ) -> Caller:
        assert transport.peer_uid == os.geteuid()
        return self.security.authenticate(
            token, transport=Transport.unix(self.uid), certificate=certificate
        )


class TooOften:
    """Implements `guard.Access`: everybody has asked too often."""

    def authenticate(
        self,
        token: str | None,  # noqa: ARG002 - the port's form
        *,
        transport: Transport,  # noqa: ARG002 - the port's form
        certificate: tuple[str, ...] | None = None,  # noqa: ARG002 - the port's form
    ) -> Caller:
        error = BusyError("too many requests")
        error.retry_after_s = 2.5
        raise error


class HttpAgent:
    """Serves a home's `agent.sock`, and loopback TCP with real tokens; a context manager."""

    def __init__(
        self,
        home: Home,
        *,
        access: Access | None = None,
        patience: Patience | None = None,
        limits: Limits | None = None,
        max_waiting: int = 128,
        settings: Api | None = None,
        webhooks: Webhooks | None = None,
        github_steps: GitHubSteps | None = None,
        door: Door | None = None,
    ) -> None:
        self.home = home
        self._door = door
        self._webhooks = webhooks
        self.github_steps = github_steps
        settings = settings or Api()
        self._tls = load_server_tls(settings, datetime.now(UTC))
        self.agent = QuietAgent(home)
        self.engine_answers = True
        self._database = Database(home.database)
        self.tokens = TokenStore(self._database)
        self.operations = Operations(
            self.agent,
            self.agent.store,
            lambda: FakePlaces(home),
            partial(receive_bundle, home),
        )
        self._access = access or Security(self.tokens, settings, os.geteuid(), door=door)
        self._patience, self._limits, self._max_waiting = patience, limits, max_waiting
        self._pool = ThreadPoolExecutor(4)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edge")
        self.port = 0

    def __enter__(self) -> Self:
        self.home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        tcp = bind_tcp(Endpoint("127.0.0.1", self.port))
        self.port = tcp.getsockname()[1]
        listeners = [
            Listener(bind_unix(self.home.socket)),
            Listener(tcp, self._tls.context if self._tls else None, loopback_hosts()),
        ]
        if self._door is not None:
            listeners.append(Listener(bind_door(self._door), is_door=True))
        health = Health(self.agent, self.agent.store, self._check_engine)
        self.app = make_app(
            self.operations,
            self._access,
            self._pool,
            health,
            lambda: b"smidr_queue_length 0.0\n",
            patience=self._patience,
            limits=self._limits,
            webhooks=self._webhooks,
            github_steps=self.github_steps,
        )
        self.server = HttpServer(self.app, listeners, self._patience, max_waiting=self._max_waiting)
        self._thread.start()
        self._run(self.server.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._pool.shutdown()
        self.agent.close()
        self._database.close()

    @property
    def url(self) -> str:
        """Of the TCP listener."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def token(self, scope: Scope) -> str:
        """A fresh token's secret."""
        return self.tokens.create(f"{scope}-{os.urandom(3).hex()}", scope)[1]

    def connect(self) -> socket.socket:
        """A bare TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def log(self, build_id: str, text: bytes) -> None:
        """Add to a build's console."""
        with self.agent.log_of(build_id).open("ab") as file:
            file.write(text)

    def leave_artifacts(self, record: BuildRecord, files: dict[str, bytes]) -> None:
        """Let a build have left these files."""
        deploy = self.home.root / "deploy" / record.build_id
        for name, content in files.items():
            (deploy / name).parent.mkdir(parents=True, exist_ok=True)
            (deploy / name).write_bytes(content)
        folder = self.home.artifacts / record.customer / record.build_id
        manifest = collect(deploy, ["**"], folder, created=datetime.now(UTC))
        kept = tuple(
            ArtifactRecord(item.path, item.size_bytes, item.sha256) for item in manifest.artifacts
        )
        self.agent.change(record.build_id, artifacts=kept)

    def _check_engine(self) -> None:
        if not self.engine_answers:
            raise EngineError("no engine")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)
