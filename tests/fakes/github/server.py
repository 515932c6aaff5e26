"""A GitHub on loopback: REST, results service, identity tokens; it misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fakes.github import identity, rest
from tests.fakes.github.openapi import faults_of_answer, faults_of_request
from tests.fakes.github.rest import Answer, Asked
from tests.fakes.github.results import ResultsState
from tests.fakes.github.scale_sets import QUEUE, TENANT, FakeScaleSets
from tests.fakes.github.state import GitHubState

__all__ = ["Answer", "Asked", "Fault", "GitHubServer", "serve"]


@dataclass
class Fault:
    """What goes wrong with the next `count` requests whose `METHOD path` matches."""

    pattern: str
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    count: int = 1
    is_after: bool = False
    """It is done, and only then this is answered (or nothing)."""
    is_cut: bool = False
    """No answer: the connection is closed."""
    is_truncated: bool = False
    """Half of the answer, then the connection is closed."""
    until: threading.Event | None = None
    """Hold the request until this is set, then go on as usual."""


class GitHubServer(ThreadingHTTPServer):
    """`state` and `results` hold the data, `requests` all that came; change them under `lock`."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = GitHubState()
        self.results = ResultsState(self)
        self.scale_sets = FakeScaleSets(self)
        self.lock = threading.Condition()
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.violations: list[str] = []
        self.is_down = False
        self.is_closing = False
        self.is_strict = True
        """Requests that the description does not allow are violations."""

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """What a host registers with."""
        return f"{self.web}/acme/bsp"

    def asked(self, pattern: str) -> list[Asked]:
        """The requests so far whose `METHOD path` matches."""
        with self.lock:
            found = list(self.requests)
        return [item for item in found if re.fullmatch(pattern, f"{item.method} {item.path}")]

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
        with self.lock:
            if not self.lock.wait_for(is_so, timeout_s):
                seen = [f"{item.method} {item.path}" for item in self.requests[-20:]]
                raise AssertionError(f"it did not happen; the last requests: {seen}")

    def fault_for(self, asked: Asked) -> Fault | None:
        for fault in self.faults:
            if fault.count > 0 and re.fullmatch(fault.pattern, f"{asked.method} {asked.path}"):
                fault.count -= 1
                return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


@contextmanager
def serve() -> Iterator[GitHubServer]:
    """A running server; in the end it tells what was against GitHub's description."""
    with GitHubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with server.lock:
                server.is_closing = True
                server.lock.notify_all()
                for fault in server.faults:
                    if fault.until is not None:
                        fault.until.set()
            server.shutdown()
            thread.join()
            server.results.close()
    assert not server.violations, "\n".join(server.violations)


class _Handler(BaseHTTPRequestHandler):
    server: GitHubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        if self.server.is_down:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = parts.path
        if path.startswith("/blob/"):
            self._serve_blob(Asked(self.command, path, query, headers))
            return
        length = int(headers.get("content-length", "0"))
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw else None
        is_rest = path.startswith("/api/v3/")
        asked = Asked(self.command, path.removeprefix("/api/v3"), query, headers, body)
        self._answer(asked, self._rest if is_rest else self._other)

    def _answer(self, asked: Asked, handle: Callable[[Asked], Answer]) -> None:
        with self.server.lock:
            self.server.requests.append(asked)
            fault = self.server.fault_for(asked)
            self.server.lock.notify_all()
        if fault is not None and fault.until is not None:
            fault.until.wait(60)
            fault = None
        if fault is not None and not fault.is_after:
            found = Answer(fault.status, fault.body or {"message": "made"}, dict(fault.headers))
        else:
            with self.server.lock:
                found = handle(asked)
                self.server.lock.notify_all()
            if fault is not None and not (fault.is_cut or fault.is_truncated):
                found = Answer(fault.status, fault.body or {"message": "made"}, dict(fault.headers))
        if fault is not None and fault.is_cut:
            self.close_connection = True
            return
        self._send(asked, found, is_truncated=fault is not None and fault.is_truncated)

    def _rest(self, asked: Asked) -> Answer:
        asked.path = unquote(asked.path)
        if asked.path == "/actions/runner-registration":
            return self.server.scale_sets.register(asked)
        if self.server.is_strict:
            faults = faults_of_request(asked.method, asked.path, asked.query, asked.body)
            self.server.violations += faults
            if faults:
                return Answer(422, {"message": "Validation Failed", "errors": faults})
        found = rest.answer(self.server.state, asked)
        if found.status == 301:
            found.headers["Location"] = f"{self.server.web}/api/v3{found.headers['Location']}"
        if "Link" in found.headers:
            address = f"<{self.server.web}/api/v3/"
            found.headers["Link"] = found.headers["Link"].replace("</", address)
        self.server.violations += faults_of_answer(
            asked.method, asked.path, found.status, found.body
        )
        if asked.method == "GET" and found.status == 200:
            text = asked.headers.get("authorization", "") + json.dumps(found.body)
            etag = f'W/"{hashlib.sha256(text.encode()).hexdigest()}"'
            if asked.headers.get("if-none-match") == etag:
                return Answer(304, None, {"ETag": etag})
            found.headers["ETag"] = etag
        return found

    def _other(self, asked: Asked) -> Answer:
        if asked.path.startswith((TENANT, QUEUE)):
            return self.server.scale_sets.answer(asked)
        if asked.path.startswith("/twirp/"):
            return self.server.results.call(asked)
        return identity.answer(self.server.web, asked)

    def _serve_blob(self, asked: Asked) -> None:
        """Bodies of blocks go to disk in pieces: the fake's own memory must stay flat too."""
        with self.server.lock:
            self.server.requests.append(asked)
            fault = self.server.fault_for(asked)
            self.server.lock.notify_all()
        length = int(asked.headers.get("content-length", "-1"))
        found = self.server.results.put(asked, self.rfile, length)
        if fault is not None and fault.is_cut:
            self.close_connection = True
            return
        if fault is not None:
            found = Answer(fault.status, None, dict(fault.headers))
        self._send(asked, found)

    def _send(self, asked: Asked, found: Answer, *, is_truncated: bool = False) -> None:
        raw = b"" if found.body is None else json.dumps(found.body).encode()
        raw = raw if found.raw is None else found.raw
        self.send_response(found.status)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "X-GitHub-Request-Id": "FAKE:1",
            **found.headers,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if found.status != 304:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if asked.method != "HEAD":
            self.wfile.write(raw[: len(raw) // 2] if is_truncated else raw)
        if is_truncated:
            self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header tells the state's time."""
        del timestamp
        return super().date_time_string(self.server.state.now.timestamp())
