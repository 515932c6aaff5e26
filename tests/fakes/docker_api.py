"""A container engine's HTTP API on a unix socket, as far as a test spells it out.

For what a real engine can't be made to do in a test: refuse, stream, hang up, restart.
"""

from __future__ import annotations

import gc
import json
import re
import socketserver
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.sockets import address_for

__all__ = ["INFO", "VERSION", "Answer", "FakeDockerApi", "Request", "collect_lost_sockets"]

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}]}
INFO = {
    "NCPU": 2,
    "MemTotal": 8 * 1024**3,
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
}


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What it gets: a body as JSON, or a stream of chunks."""

    status: int = 200
    json: Any = None
    stream: Iterable[bytes] | None = None


Responder = Callable[[Request], Answer]


@dataclass
class FakeDockerApi:
    """Serve with `start`; `on` says what to answer; `requests` tells what came."""

    socket: Path
    requests: list[Request] = field(default_factory=list)
    _routes: list[tuple[str, str, Responder]] = field(default_factory=list)
    _server: socketserver.UnixStreamServer | None = None

    def __post_init__(self) -> None:
        self.socket = address_for(self, self.socket)
        self.on("GET", "/version", lambda _: Answer(json=VERSION))
        self.on("GET", "/info", lambda _: Answer(json=INFO))

    @property
    def url(self) -> str:
        """What DOCKER_HOST would be."""
        return f"unix://{self.socket}"

    def on(self, method: str, path: str, answer: Answer | Responder) -> None:
        """Answer requests whose path (without `/v1.41`) matches the pattern; the newest counts."""
        responder = answer if callable(answer) else lambda _request: answer
        self._routes.insert(0, (method, path, responder))

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far that match."""
        return [
            one for one in self.requests if one.method == method and re.fullmatch(path, one.path)
        ]

    def start(self) -> None:
        """Listen; again after `stop`, as an engine that restarts."""
        self.socket.unlink(missing_ok=True)
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        for method in ("POST", "PUT", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.do_GET)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            block_on_close = False

            def get_request(self) -> tuple[Any, Any]:
                connection, _ = super().get_request()
                return connection, ("local", 0)

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients hang up on purpose

        server = Server(str(self.socket), Handler)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more; requests from now on are refused."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        if self._server is None:
            handler.close_connection = True
            return
        request = _read(handler)
        self.requests.append(request)
        answer = self._find(request)(request)
        handler.send_response(answer.status)
        if answer.stream is None:
            raw = b"" if answer.status in {204, 304} else json.dumps(answer.json).encode()
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            handler.wfile.write(raw)
            return
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in answer.stream:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")

    def _find(self, request: Request) -> Responder:
        for method, path, responder in self._routes:
            if method == request.method and re.fullmatch(path, request.path):
                return responder
        text = f"the test has no answer to {request.method} {request.path}"
        return lambda _request: Answer(404, {"message": text})


def collect_lost_sockets() -> None:
    """Free sockets that could not connect: the SDK leaves them to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _read(handler: BaseHTTPRequestHandler) -> Request:
    parts = urlsplit(handler.path)
    if handler.headers.get("Transfer-Encoding") == "chunked":
        body = b"".join(_chunks(handler))
    else:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    return Request(
        method=handler.command,
        path=re.sub(r"^/v\d+\.\d+", "", parts.path),
        query={name: values[-1] for name, values in parse_qs(parts.query).items()},
        headers=dict(handler.headers.items()),
        body=body,
    )


def _chunks(handler: BaseHTTPRequestHandler) -> Iterable[bytes]:
    while size := int(handler.rfile.readline(), 16):
        yield handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
