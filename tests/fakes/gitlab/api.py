"""The parts of GitLab's ordinary API that write on merge requests and commits, on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["GitLabApi", "serve_gitlab_api"]

_NOTES = re.compile(r"/api/v4/projects/(\d+)/merge_requests/(\d+)/notes(?:/(\d+))?")
_STATUS = re.compile(r"/api/v4/projects/(\d+)/statuses/(\w+)")
_STATUSES = re.compile(r"/api/v4/projects/(\d+)/repository/commits/(\w+)/statuses")


class GitLabApi(ThreadingHTTPServer):
    """One user with the token `glpat-x` and id 42. Change the attributes while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notes: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.failures: list[int] = []
        """Statuses that the next requests are answered with."""
        self.drop_answers = 0
        """So many writes are done and not answered."""
        self.requests: list[tuple[str, str]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def write_note(self, body: str, author: int = 42) -> dict[str, Any]:
        note = {"id": len(self.notes) + 1, "body": body, "author": {"id": author}, "system": False}
        self.notes.append(note)
        return note

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are part of the tests."""


@contextmanager
def serve_gitlab_api() -> Iterator[GitLabApi]:
    with GitLabApi() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GitLabApi

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        pass

    def do_GET(self) -> None:
        self._serve({})

    def do_DELETE(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_PUT(self) -> None:
        self.do_POST()

    def _serve(self, body: dict[str, Any]) -> None:
        server = self.server
        server.requests.append((self.command, self.path))
        if server.failures:
            self._answer(server.failures.pop(0), {"message": "trouble"})
        elif self.headers.get("PRIVATE-TOKEN") != "glpat-x":
            self._answer(401, {"message": "401 Unauthorized"})
        else:
            status, answer = self._act(urlsplit(self.path).path, body)
            if self.command != "GET" and server.drop_answers:
                server.drop_answers -= 1
                return
            self._answer(status, answer)

    def _act(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/api/v4/user":
            return 200, {"id": 42, "username": "bot"}
        if found := _NOTES.fullmatch(path):
            return self._notes(found[3], body)
        if _STATUS.fullmatch(path):
            return self._set_status(body)
        if _STATUSES.fullmatch(path):
            return 200, self.server.statuses
        return 404, {"message": "404 Not found"}

    def _notes(self, number: str | None, body: dict[str, Any]) -> tuple[int, Any]:
        server = self.server
        if self.command == "GET":
            query = parse_qs(urlsplit(self.path).query)
            page, size = int(query.get("page", ["1"])[0]), int(query.get("per_page", ["20"])[0])
            self._next_page = str(page + 1) if page * size < len(server.notes) else ""
            return 200, server.notes[(page - 1) * size : page * size]
        if self.command == "POST":
            return 201, server.write_note(body["body"])
        note = next((item for item in server.notes if str(item["id"]) == number), None)
        if note is None:
            return 404, {"message": "404 Note Not Found"}
        if self.command == "DELETE":
            server.notes.remove(note)
            return 204, None
        note["body"] = body["body"]
        return 200, note

    def _set_status(self, body: dict[str, Any]) -> tuple[int, Any]:
        status = {"name": body["name"], "status": body["state"], "ref": body.get("ref"), **body}
        for known in self.server.statuses:
            if known["name"] == body["name"]:
                if known["status"] == body["state"]:
                    word = body["state"]
                    return 400, {"message": f"Cannot transition status via :{word} from :{word}"}
                known.update(status)
                return 201, known
        self.server.statuses.append(status)
        return 201, status

    _next_page = ""

    def _answer(self, status: int, answer: Any) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self._next_page:
            parts = urlsplit(self.path)
            query = re.sub(r"&?\bpage=\d+", "", parts.query)
            link = f"{self.server.base}{parts.path}?{query}&page={self._next_page}"
            self.send_header("Link", f'<{link}>; rel="next"')
        self.end_headers()
        self.wfile.write(content)
