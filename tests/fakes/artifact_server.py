"""GitLab's artifact endpoints on loopback, with faults on demand."""

from __future__ import annotations

import email.parser
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["ArtifactServer", "Fault", "Upload", "serve_artifacts"]


@dataclass(frozen=True)
class Fault:
    """How one request ends instead of well."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    read_bytes: int | None = None
    """Answer after so many bytes of the body and close; None reads all of it."""
    is_cut: bool = False
    """Close without an answer."""


@dataclass(frozen=True)
class Upload:
    """One request that was taken."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]
    file_name: str
    content: bytes
    size: int
    sha256: str
    is_chunked: bool


class ArtifactServer(ThreadingHTTPServer):
    """Change the attributes while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[Fault] = []
        self.uploads: list[Upload] = []
        self.downloads: dict[str, bytes] = {}
        """By path."""
        self.redirects: dict[str, str] = {}
        """A path with `direct_download=true` is answered with 302 to this URL."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.keeps_content = True

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the tests."""


@contextmanager
def serve_artifacts() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ArtifactServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        pass

    def do_GET(self) -> None:
        self._note()
        if self.server.faults:
            self._fail(self.server.faults.pop(0))
            return
        parts = urlsplit(self.path)
        direct = parse_qs(parts.query).get("direct_download") == ["true"]
        if direct and parts.path in self.server.redirects:
            self._answer(302, {"Location": self.server.redirects[parts.path]})
        elif parts.path in self.server.downloads:
            content = self.server.downloads[parts.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        self._note()
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is not None:
            self._drain(fault.read_bytes)
            self._fail(fault)
            return
        content, size, digest = self._drain(None)
        parts = urlsplit(self.path)
        name, body = _file_of(self.headers["Content-Type"], content)
        params = {key: values[0] for key, values in parse_qs(parts.query).items()}
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        self.server.uploads.append(
            Upload(parts.path, params, dict(self.headers), name, body, size, digest, chunked)
        )
        self._answer(201, {})

    def _note(self) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers)))

    def _fail(self, fault: Fault) -> None:
        self.close_connection = True
        if not fault.is_cut:
            self._answer(fault.status, fault.headers, fault.message)

    def _answer(self, status: int, headers: dict[str, str], message: str = "") -> None:
        body = json.dumps({"message": message or str(status)}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drain(self, limit: int | None) -> tuple[bytes, int, str]:
        parts, size, digest = [], 0, hashlib.sha256()
        for chunk in self._body():
            size += len(chunk)
            digest.update(chunk)
            if self.server.keeps_content:
                parts.append(chunk)
            if limit is not None and size >= limit:
                break
        return b"".join(parts), size, digest.hexdigest()

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            chunk = self.rfile.read(min(left, 1 << 18))
            left -= len(chunk)
            yield chunk


def _file_of(content_type: str, body: bytes) -> tuple[str, bytes]:
    if not body:
        return "", b""
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    head, _, rest = body.partition(b"\r\n\r\n")
    assert head.startswith(boundary + b"\r\n")
    end = b"\r\n" + boundary + b"--\r\n"
    assert rest.endswith(end)
    fields = email.parser.BytesParser().parsebytes(head.removeprefix(boundary + b"\r\n"))
    name = fields.get_filename()
    assert isinstance(name, str)
    return name, rest[: -len(end)]
