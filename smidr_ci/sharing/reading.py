"""What builds read of the store: a small HTTP server, read-only, on a unix socket.

A builder has no login for the store, and maybe no network. Its driver leads a loopback port to this
socket, so that BitBake finds a mirror there, whatever the store is.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.files import as_host_error
from smidr_ci.sharing.gate import Gate
from smidr_ci.sharing.names import DOWNLOADS, SSTATE, key_of
from smidr_ci.sharing.relaying import bound_unix
from smidr_ci.stores.model import (
    MissingObjectError,
    ObjectStore,
    Readable,
    StoredObject,
    StoreError,
)

__all__ = ["SHARE_SOCKET", "ShareReader"]

SHARE_SOCKET: Final = "socket"
"""Name in the reader's folder."""
_PATH: Final = re.compile(rf"/({SSTATE}|{DOWNLOADS})/([^?#]{{1,900}})")
_CHUNK: Final = 1 << 18
_CONNECTIONS: Final = 64
_IDLE_S: Final = 60.0
_PAUSE_S: Final = 0.5

Opened = tuple[StoredObject, AbstractContextManager[Readable] | None, Readable | None]


class ShareReader:
    """Answers GET and HEAD of `/sstate/...` and `/downloads/...` until stopped.

    `owner` is who may connect, when root serves.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        *,
        caches: frozenset[str] = frozenset({SSTATE, DOWNLOADS}),
        owner: tuple[int, int] | None = None,
        clock: Clock | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._caches = caches
        self._owner = owner
        self._gate = gate or Gate(clock or SystemClock())
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why the store gives nothing now; empty while it answers."""
        return self._gate.problem

    def start(self) -> None:
        """Listen, in the place of whoever died there; raises `HostError`."""
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._server = _Server(self._folder, self._answer_for, self._owner)
        except OSError as error:
            raise as_host_error(
                error, "can't give builds the shared cache", self._folder
            ) from error
        serve = self._server.serve
        self._thread = threading.Thread(target=serve, name="share-reader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more, and end what goes on."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join()
            self._server.server_close()
            with contextlib.suppress(OSError):
                (self._folder / SHARE_SOCKET).unlink()
            self._server = None

    def _answer_for(self, path: str, *, with_body: bool) -> Opened | None:
        """The object at a URL's path; None for nothing. Raises `StoreError`."""
        found = _PATH.fullmatch(path)
        if found is None or found[1] not in self._caches:
            return None
        inner = unquote(found[2])
        if any(part in {"", ".", ".."} for part in inner.split("/")):
            return None
        try:
            key = key_of(found[1], inner)
        except ValueError:
            return None
        try:
            return self._gate.ask(lambda: self._look(key, with_body=with_body), _dispose)
        except MissingObjectError:
            return None

    def _look(self, key: str, *, with_body: bool) -> Opened | None:
        stored = self._store.head(key)
        if stored is None or not with_body:
            return None if stored is None else (stored, None, None)
        opened = self._store.open(key)
        return stored, opened, opened.__enter__()


def _dispose(answer: Opened | None) -> None:
    if answer is not None and answer[1] is not None:
        answer[1].__exit__(None, None, None)


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A thread per connection, and not more than some."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        folder: Path,
        answer_for: Callable[..., Opened | None],
        owner: tuple[int, int] | None,
    ) -> None:
        super().__init__(str(folder), _Handler)
        self.answer_for = answer_for
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._ending = threading.Event()
        self.socket = bound_unix(folder, SHARE_SOCKET, owner)

    def serve(self) -> None:
        """Take connections until `end`; socketserver's own loop would wake twice a second."""
        while not self._ending.is_set():
            try:
                request, address = self.get_request()
            except OSError:
                # Out of descriptors, say; builds close some.
                self._ending.wait(_PAUSE_S)
                continue
            if self.verify_request(request, address):
                self.process_request(request, address)
            else:
                self.shutdown_request(request)

    def end(self) -> None:
        self._ending.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # which ends the wait for a connection

    def get_request(self) -> tuple[socket.socket, str]:
        connection, _ = self.socket.accept()
        return connection, "builder"

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401, ARG002 - socketserver's
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        with self._lock:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - socketserver's
        with self._lock:
            self._open.discard(request)
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_WR)
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """A builder that hangs up is none of our trouble."""

    def server_close(self) -> None:
        self.socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "smidr"
    sys_version = ""
    timeout = _IDLE_S
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Nobody wants to read of each object."""

    def _answer(self, *, with_body: bool) -> None:
        try:
            found = self.server.answer_for(self.path, with_body=with_body)
        except StoreError:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        if found is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        stored, opened, body = found
        try:
            self.send_response(HTTPStatus.OK)
            # Without Last-Modified: wget would give it to its file, which then looks unused.
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(stored.size_bytes))
            self.end_headers()
            if body is not None and not self._send(body, stored):
                self.close_connection = True
        finally:
            if opened is not None:
                opened.__exit__(None, None, None)
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: Readable, stored: StoredObject) -> bool:
        """Hold the last piece back until all is as the store said; False to break off."""
        digest, left, held = hashlib.sha256(), stored.size_bytes, b""
        try:
            while chunk := body.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    return False
                digest.update(chunk)
                self.wfile.write(held)
                held = chunk
        except StoreError:
            return False
        if left or (stored.sha256 and digest.hexdigest() != stored.sha256):
            return False
        self.wfile.write(held)
        return True
