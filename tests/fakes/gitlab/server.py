"""A GitLab on loopback that speaks the runner protocol strictly, and misbehaves on demand."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.gitlab.state import Answer, FakeJob, FakeRunner, GitLabState, Request

__all__ = ["Answer", "FakeJob", "FakeRunner", "Fault", "GitLabServer", "Request", "serve"]

_JOB_PATH = re.compile(r"jobs/(\d+)(/trace|/artifacts)?")
_MAX_REQUEST = 32 * 1024
_ZEROS = bytes(1 << 20)


@dataclass
class Fault:
    """What goes wrong with the next `count` requests to an operation.

    Operations: register, verify, unregister, reset, request, update, final, patch, upload.
    """

    operation: str
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    count: int = 1
    is_after: bool = False
    """The server does it, and answers this (or nothing) then."""
    is_cut: bool = False
    """No answer: the connection is closed."""
    until: threading.Event | None = None
    """Hold the request until this is set, then go on as usual."""


class GitLabServer(ThreadingHTTPServer):
    """`state` holds the rules and data; `requests` all that came; change knobs under `lock`."""

    daemon_threads = True

    def __init__(self, prefix: str = "", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.prefix = prefix
        self.state = GitLabState()
        self.lock = threading.Condition()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.is_down = False
        """Every connection is closed without an answer."""
        self.long_poll_s = 0.0
        self.held_polls = 0
        self.refused = 0
        """How many requests found it down."""
        self.bytes_per_s: float | None = None
        """How slowly bodies are read."""
        self.uploads_to: Path | None = None
        """Uploads go to files here and not into memory; each has its path for a body."""
        self.content_type = "application/json"
        self.elsewhere: Callable[[BaseHTTPRequestHandler], bool] = lambda _handler: False
        """Serves what is not the runner protocol, and says whether it was."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{self.prefix}"

    def add_job(self, payload: dict[str, Any]) -> FakeJob:
        with self.lock:
            job = self.state.add_job(payload)
            self.lock.notify_all()
            return job

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
        with self.lock:
            if not self.lock.wait_for(is_so, timeout_s):
                seen = [f"{item.method} {item.path}" for item in self.requests[-20:]]
                raise AssertionError(f"it did not happen; the last requests: {seen}")

    def asked(self, operation: str) -> list[Request]:
        with self.lock:
            return [item for item in self.requests if _operation_of(item) == operation]

    def change(self, job: FakeJob, **changes: Any) -> None:
        with self.lock:
            for name, value in changes.items():
                setattr(job, name, value)
            self.lock.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is part of the tests."""


@contextmanager
def serve(prefix: str = "", port: int = 0) -> Iterator[GitLabServer]:
    """A running server; in the end it tells what was against the protocol."""
    with GitLabServer(prefix, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with server.lock:
                server.long_poll_s = 0
                for fault in server.faults:
                    if fault.until is not None:
                        fault.until.set()
                server.lock.notify_all()
            server.shutdown()
            thread.join()
    assert server.state.violations == []


def _operation_of(request: Request) -> str:
    known = {
        ("POST", "runners"): "register",
        ("POST", "runners/verify"): "verify",
        ("DELETE", "runners"): "unregister",
        ("DELETE", "runners/managers"): "unregister",
        ("POST", "runners/reset_authentication_token"): "reset",
        ("POST", "jobs/request"): "request",
    }
    found = known.get((request.method, request.path))
    if found:
        return found
    job = _JOB_PATH.fullmatch(request.path)
    if job is None:
        return "unknown"
    if job[2] is None:
        is_final = request.json.get("state") in {"success", "failed"}
        return "final" if is_final else "update"
    return "patch" if job[2] == "/trace" else "upload"


class _Handler(BaseHTTPRequestHandler):
    server: GitLabServer
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
        server = self.server
        if server.is_down:
            self.close_connection = True
            with server.lock:
                server.refused += 1
                server.lock.notify_all()
            return
        if server.elsewhere(self):
            return
        request = self._read()
        fault = self._note(request)
        if fault is not None and fault.until is not None:
            fault.until.wait(30)
            fault = None
        if fault is None:
            self._send(self._obey(request))
            return
        if fault.is_after:
            self._obey(request)
        if fault.is_cut:
            self.close_connection = True
            return
        self._send(Answer(fault.status, fault.body, fault.headers))

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(f"{self.server.prefix}/api/v4/")
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query))
        folder = self.server.uploads_to
        if folder is not None and path.endswith("/artifacts"):
            body = str(self._save(folder)).encode()
        else:
            body = b"".join(self._body())
        return Request(self.command, path, query, headers, body, time.monotonic())

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield from self._slowly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._slowly(int(self.headers.get("Content-Length", 0)))

    def _slowly(self, size: int) -> Iterator[bytes]:
        while size:
            rate = self.server.bytes_per_s
            part = self.rfile.read(min(size, max(1, int(rate / 20)) if rate else 1 << 20))
            if not part:
                raise ConnectionError
            size -= len(part)
            yield part
            if rate:
                time.sleep(0.05)

    def _save(self, folder: Path) -> Path:
        """The body as a file, with holes for its zeros."""
        path = folder / f"{time.monotonic_ns()}.form"
        with path.open("wb") as out:
            for part in self._body():
                if part == _ZEROS[: len(part)]:
                    out.seek(len(part), os.SEEK_CUR)
                else:
                    out.write(part)
            out.truncate()
        return path

    def _note(self, request: Request) -> Fault | None:
        server = self.server
        with server.lock:
            server.requests.append(request)
            server.lock.notify_all()
            violations = server.state.violations
            if not re.fullmatch(r"[0-9a-f]{32}", request.headers.get("x-request-id", "")):
                violations.append(f"X-Request-Id of {request.method} {request.path}")
            if not request.headers.get("user-agent", "").startswith("smidr-ci "):
                violations.append(f"User-Agent of {request.method} {request.path}")
            operation = _operation_of(request)
            for fault in server.faults:
                if fault.operation == operation and fault.count:
                    fault.count -= 1
                    return fault
            return None

    def _obey(self, request: Request) -> Answer:
        server = self.server
        if request.path == "jobs/request" and len(request.body) >= _MAX_REQUEST:
            return Answer(413)
        with server.lock:
            if request.path == "jobs/request" and server.long_poll_s:
                held = self._hold(request)
                if held is not None:
                    return held
            answer = self._decide(request)
            server.lock.notify_all()
            return answer

    def _hold(self, request: Request) -> Answer | None:
        server = self.server
        if not server.state.is_up_to_date(request):
            return None
        server.held_polls += 1
        server.lock.notify_all()
        server.lock.wait_for(
            lambda: not server.state.is_up_to_date(request) or not server.long_poll_s,
            server.long_poll_s,
        )
        return Answer(204, None, {"Gitlab-Ci-Builds-Polling": "yes"})

    def _decide(self, request: Request) -> Answer:
        state, operation = self.server.state, _operation_of(request)
        simple: dict[str, Callable[[Request], Answer]] = {
            "register": state.register,
            "verify": state.verify,
            "unregister": state.unregister,
            "reset": state.reset,
            "request": state.next_job,
        }
        if operation in simple:
            return simple[operation](request)
        job = _JOB_PATH.fullmatch(request.path)
        if job is None:
            return Answer(404, {"error": "404 Not Found"})
        about = {"patch": state.append, "upload": state.upload}.get(operation, state.update)
        return about(int(job[1]), request)

    def _send(self, answer: Answer) -> None:
        body = answer.body
        if body is None:
            raw = b""
        elif isinstance(body, bytes):
            raw = body
        else:
            raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Type" not in answer.headers:
            self.send_header("Content-Type", self.server.content_type)
        self.send_header("X-Request-Id", "01HGITLABCORRELATION")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(raw)
