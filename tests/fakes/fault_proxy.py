"""An HTTP proxy before a real server on loopback, which misbehaves on demand."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["Fault", "FaultProxy", "proxy_to"]

_BLOCK_BYTES = 1 << 16
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@dataclass
class Fault:
    """What goes wrong with the next `count` requests whose `METHOD path` matches."""

    pattern: str
    status: int = 0
    """Answered instead of asking the server; the body is read first."""
    body: bytes = b""
    count: int = 1
    is_cut: bool = False
    """The connection is closed after half of the body came, and the server gets nothing."""
    is_lost: bool = False
    """The server does it, and its answer is lost."""
    is_half: bool = False
    """Half of the answer's body, then the connection is closed."""
    truncate_to: int | None = None
    """The server gets only so many bytes of the body, and says that all is well."""


class FaultProxy(ThreadingHTTPServer):
    """Change `faults` while it runs; `seen` are methods and paths of all requests."""

    daemon_threads = True

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        parts = urlsplit(server)
        self.server_host, self.server_port_behind = parts.hostname or "", parts.port or 80
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.logins: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, pattern: str) -> int:
        """How many requests so far match."""
        with self.lock:
            return sum(bool(re.fullmatch(pattern, item)) for item in self.seen)

    def take(self, request: str) -> Fault | None:
        with self.lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.count > 0 and re.fullmatch(fault.pattern, request):
                    fault.count -= 1
                    return fault
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _any(self) -> None:
        fault = self.server.take(f"{self.command} {urlsplit(self.path).path}")
        self.server.logins.append(self.headers.get("Authorization", ""))
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.is_cut:
            self._read(length // 2)
            self._cut()
            return
        if fault is not None and fault.status:
            self._read(length)
            self._answer(fault.status, {}, fault.body)
            return
        self._forward(length, fault)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def _read(self, count: int) -> None:
        while count > 0 and (block := self.rfile.read(min(_BLOCK_BYTES, count))):
            count -= len(block)

    def _forward(self, length: int, fault: Fault | None) -> None:
        sent = length
        if fault is not None and fault.truncate_to is not None:
            sent = min(length, fault.truncate_to)
        behind = http.client.HTTPConnection(self.server.server_host, self.server.server_port_behind)
        try:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"content-length", "connection", "expect"}:
                    behind.putheader(name, value)
            if self.command in {"PUT", "POST"}:
                behind.putheader("Content-Length", str(sent))
            behind.endheaders()
            left = sent
            while left and (block := self.rfile.read(min(_BLOCK_BYTES, left))):
                behind.send(block)
                left -= len(block)
            self._read(length - sent)
            with behind.getresponse() as response:
                self._pass_on(response, fault)
        finally:
            behind.close()

    def _pass_on(self, response: http.client.HTTPResponse, fault: Fault | None) -> None:
        if fault is not None and fault.is_lost:
            response.read()
            self._cut()
            return
        headers = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
        length = response.getheader("Content-Length")
        body = b"" if self.command == "HEAD" else response.read()
        shown = length if self.command == "HEAD" else str(len(body))
        if fault is not None and fault.is_half:
            body = body[: len(body) // 2]
        if shown is not None:
            headers["Content-Length"] = shown
        self._answer(response.status, headers, body)
        if fault is not None and fault.is_half:
            self._cut()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Silent."""


@contextmanager
def proxy_to(server: str) -> Iterator[FaultProxy]:
    """A proxy that runs until the end of the block."""
    with FaultProxy(server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
