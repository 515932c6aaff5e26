"""A real git server on loopback: `git http-backend` behind HTTP, with faults on demand."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["GitServer", "publish", "serve"]

_FILE_URL = re.compile(r'"file://([^"]*/([a-z-]+\.git))"')


class GitServer(ThreadingHTTPServer):
    """Serves the repositories below `root`; the attributes may be changed while it runs."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.password: tuple[str, str] | None = None
        self.failures_left = 0
        self.failure_status = 503
        self.hold_packs = threading.Event()
        """While cleared with `hold()`, a pack stops in the middle."""
        self.hold_packs.set()
        self.pack_started = threading.Event()
        self.cut_packs = 0
        self.dumb = False
        """Serve plain files only, like a web server without git."""
        self.old = False
        """Speak the old protocol, which gives no commit by its id."""
        self.redirect_to = ""
        self.filters = True
        self.lfs: dict[str, bytes] = {}
        """What Git LFS keeps, by SHA-256."""
        self.lfs_failures = 0
        """So many questions about it are answered with 503."""
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def url(self, repository: str) -> str:
        return f"{self.base}/{repository}"

    def asked(self, text: str) -> int:
        return sum(text in path for _, path, _ in self.requests)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is part of the tests."""


def publish(config: Path, server: GitServer) -> None:
    """Have a project config take its layers' repositories of this host from the server."""

    def url(match: re.Match[str]) -> str:
        served = server.root / match[2]
        if not served.exists():
            served.symlink_to(match[1])
        return f'"{server.url(match[2])}"'

    config.write_text(_FILE_URL.sub(url, config.read_text()))


@contextmanager
def serve(root: Path) -> Iterator[GitServer]:
    with GitServer(root) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.hold_packs.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GitServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Authorization")))
        if server.redirect_to:
            self.send_response(302)
            self.send_header("Location", server.redirect_to + self.path)
            self.end_headers()
        elif server.failures_left:
            server.failures_left -= 1
            self.send_error(server.failure_status)
        elif not self._is_allowed():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()
        elif server.lfs_failures and "lfs/" in self.path:
            server.lfs_failures -= 1
            self.send_error(503)
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer_lfs(json.loads(body))
        elif "/gitlab-lfs/objects/" in self.path:
            self._serve_lfs(self.path.rpartition("/")[2])
        elif server.dumb:
            self._serve_file()
        else:
            self._run_backend(body)

    def _is_allowed(self) -> bool:
        if self.server.password is None:
            return True
        wanted = base64.b64encode(":".join(self.server.password).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def _serve_file(self) -> None:
        path = self.server.root / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(path.read_bytes())

    def _answer_lfs(self, asked: dict[str, Any]) -> None:
        """GitLab's answer: where each object is, and what to show there (Git LFS: batch API)."""
        repository = self.path.removesuffix("/info/lfs/objects/batch")
        place = f"{self.server.base}{repository}/gitlab-lfs/objects"
        header = {"Authorization": self.headers.get("Authorization", "")}
        objects = [
            {**item, "actions": {"download": {"href": f"{place}/{item['oid']}", "header": header}}}
            if item["oid"] in self.server.lfs
            else {**item, "error": {"code": 404, "message": "Object does not exist"}}
            for item in asked["objects"]
        ]
        text = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _serve_lfs(self, oid: str) -> None:
        content = self.server.lfs[oid]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _run_backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        protocol = "" if self.server.old else self.headers.get("Git-Protocol", "")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "uploadpack.allowFilter",
            "GIT_CONFIG_VALUE_0": "true" if self.server.filters else "false",
            "HTTP_GIT_PROTOCOL": protocol,
            "GIT_PROTOCOL": protocol,
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
        )
        # A refusal is an answer too, though git ends with an error then.
        assert done.stdout, done.stderr
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        self._send(head.decode(), content)

    def _send(self, head: str, content: bytes) -> None:
        status = 200
        headers = [line.partition(": ") for line in head.splitlines()]
        for name, _, value in headers:
            if name == "Status":
                status = int(value.split()[0])
        self.send_response(status)
        for name, _, value in headers:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if b"PACK" in content:
            self._send_pack(content)
        else:
            self.wfile.write(content)

    def _send_pack(self, content: bytes) -> None:
        server = self.server
        half = len(content) * 2 // 3
        self.wfile.write(content[:half])
        self.wfile.flush()
        server.pack_started.set()
        server.hold_packs.wait(30)
        if server.cut_packs:
            server.cut_packs -= 1
            return
        self.wfile.write(content[half:])
