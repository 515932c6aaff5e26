"""requests with our TLS rules, whose blocked calls can be ended from another thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from smidr_ci.forges.streaming import StreamingConnection
from smidr_ci.forges.tls import TlsFiles

__all__ = ["SessionHolder", "Sockets", "open_session", "root_of"]


class Sockets:
    """The open connections of a session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._is_ended = False

    def add(self, opened: socket.socket) -> None:
        """Remember a connection; one that comes after the end is ended at once."""
        with self._lock:
            self._open.add(opened)
            if self._is_ended:
                _shut(opened)

    def end(self) -> None:
        """End all calls that run, and all that come."""
        with self._lock:
            self._is_ended = True
            for opened in list(self._open):
                _shut(opened)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket's own: that one pulls its state from under the thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class SessionHolder:
    """The session of one server: made when needed, and anew after its TLS files have changed."""

    def __init__(self, tls: TlsFiles, *, pool_size: int) -> None:
        self._tls = tls
        self._pool_size = pool_size
        self._lock = threading.Lock()
        self._sockets = Sockets()
        self._session: requests.Session | None = None
        self._stamp: tuple[int, ...] = ()

    def get(self) -> requests.Session:
        """The session; raises `ForgeUnreachableError` when a TLS file can't be used."""
        with self._lock:
            stamp = self._tls.stamp
            if self._session is None or stamp != self._stamp:
                if self._session is not None:
                    self._session.close()  # calls that run keep their connections
                context = self._tls.context()
                self._session = open_session(context, self._sockets, pool_size=self._pool_size)
                self._stamp = stamp
            return self._session

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def end(self) -> None:
        """End all calls that run, and all that come."""
        self._sockets.end()


def root_of(error: BaseException) -> BaseException:
    """What the layers of requests and urllib3 wrap."""
    for _ in range(10):
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            inner = error.__cause__
        if inner is None:
            return error
        error = inner
    return error


def open_session(context: ssl.SSLContext, sockets: Sockets, *, pool_size: int) -> requests.Session:
    """A session that takes proxies from the environment, but neither netrc nor CA variables."""
    session = requests.Session()
    adapter = _Adapter(context, sockets, pool_size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = _no_login  # or requests would send what ~/.netrc has for the host
    return session


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    """Our context instead of certifi's authorities, for direct and for proxied connections."""

    def __init__(self, context: ssl.SSLContext, sockets: Sockets, pool_size: int) -> None:
        self._context = context
        self._pools = _pool_classes(sockets)
        super().__init__(pool_connections=4, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(
        self,
        connections: int,
        maxsize: int,
        block: bool = False,
        **options: Any,  # noqa: ANN401 - the base class's signature
    ) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(
        self,
        proxy: str,
        **options: Any,  # noqa: ANN401 - the base class's signature
    ) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(
            proxy, ssl_context=self._context, **options
        )
        manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, *_: object) -> None:
        """Leave it to the context, which checks both chain and name."""


def _pool_classes(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(StreamingConnection, HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class Secure(StreamingConnection, HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
