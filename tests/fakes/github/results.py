"""The fake's results service: artifacts version 4 (twirp, JSON), and the blobs behind them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
import threading
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from tests.fakes.github.rest import Answer, Asked

if TYPE_CHECKING:
    from tests.fakes.github.server import GitHubServer

__all__ = ["FakeArtifact", "ResultsState", "runtime_token"]

SERVICE = "/twirp/github.actions.results.api.v1.ArtifactService/"
_SIGNATURE = "abc%2Bdef%3D"
_ZEROS = bytes(1 << 20)


def runtime_token(scopes: str = "Actions.Results:A:B", expires: int = 9999999999) -> str:
    """What a job gets as ACTIONS_RUNTIME_TOKEN; nobody but GitHub checks its signature."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"scp": f"Actions.GenericRead:0000 {scopes}".strip(), "exp": expires}
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


@dataclass
class FakeArtifact:
    name: str
    number: int
    mime_type: str
    version: int
    size: int = -1
    """-1 until it is finalized."""
    digest: str = ""
    block_ids: list[str] = field(default_factory=list)
    blob_type: str = ""


class ResultsState:
    """`artifacts` by name; a blob's content is the file that `path_of` gives."""

    def __init__(self, server: GitHubServer) -> None:
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="fake-results-")
        self._lock = threading.Lock()
        self.artifacts: dict[str, FakeArtifact] = {}
        self.expired = False
        self.puts: list[tuple[str, str, int]] = []
        """Kind (`block`, `list`), the block's id and its length."""
        self.violations: list[str] = []

    def close(self) -> None:
        self._folder.cleanup()

    def path_of(self, name: str) -> Path:
        return Path(self._folder.name) / f"{self.artifacts[name].number}.blob"

    def call(self, asked: Asked) -> Answer:
        if self.expired or not asked.headers.get("authorization", "").startswith("Bearer "):
            return Answer(401, {"code": "unauthenticated", "msg": "token is expired"})
        body = dict(asked.body or {})
        ids = (body.get("workflow_run_backend_id"), body.get("workflow_job_run_backend_id"))
        if ids != ("A", "B"):
            return Answer(400, {"code": "invalid_argument", "msg": f"wrong ids {ids}"})
        handlers = {
            "CreateArtifact": self._create,
            "FinalizeArtifact": self._finalize,
            "ListArtifacts": self._list,
            "DeleteArtifact": self._delete,
        }
        return handlers[asked.path.removeprefix(SERVICE)](body)

    def _create(self, body: dict[str, Any]) -> Answer:
        name = body["name"]
        if body.get("version") != 7 or any(sign in name for sign in '":<>|*?\r\n\\/'):
            return Answer(400, {"code": "invalid_argument", "msg": "bad version or name"})
        if name in self.artifacts:
            return Answer(409, {"code": "already_exists", "msg": "an artifact with this name"})
        number = 4242 + len(self.artifacts)
        self.artifacts[name] = FakeArtifact(name, number, body["mime_type"], body["version"])
        url = f"{self._server.web}/blob/c/{number}?sv=2025-01-01&sr=b&sig={_SIGNATURE}"
        return Answer(200, {"ok": True, "signed_upload_url": url})

    def _finalize(self, body: dict[str, Any]) -> Answer:
        artifact = self.artifacts[body["name"]]
        path = self.path_of(artifact.name)
        if not isinstance(body["size"], str) or path.stat().st_size != int(body["size"]):
            return Answer(400, {"code": "invalid_argument", "msg": f"size {body['size']!r}"})
        digest = _sha256(path)
        if body["hash"] != f"sha256:{digest}":
            return Answer(400, {"code": "invalid_argument", "msg": "the hash differs"})
        artifact.size, artifact.digest = int(body["size"]), body["hash"]
        return Answer(200, {"ok": True, "artifact_id": str(artifact.number)})

    def _list(self, body: dict[str, Any]) -> Answer:
        wanted = body.get("name_filter")
        found = [
            {
                "workflow_run_backend_id": "A",
                "workflow_job_run_backend_id": "B",
                "database_id": str(item.number),
                "name": item.name,
                "size": str(item.size),
                "digest": item.digest,
            }
            for item in self.artifacts.values()
            if item.size >= 0 and (wanted is None or item.name == wanted)
        ]
        return Answer(200, {"artifacts": found})

    def _delete(self, body: dict[str, Any]) -> Answer:
        gone = self.artifacts.pop(body["name"], None)
        if gone is None:
            return Answer(404, {"code": "not_found", "msg": "no such artifact"})
        return Answer(200, {"ok": True, "artifact_id": str(gone.number)})

    def put(self, asked: Asked, stream: BufferedIOBase, length: int) -> Answer:
        """Azure's block blobs: blocks, then their list."""
        number = int(urlsplit(asked.path).path.rpartition("/")[2])
        artifact = next(item for item in self.artifacts.values() if item.number == number)
        if asked.query.get("sig") != "abc+def=" or asked.method != "PUT" or length < 0:
            return Answer(403, {"message": "AuthenticationFailed"})
        if asked.query.get("comp") == "block":
            return self._put_block(artifact, asked.query["blockid"], asked, stream, length)
        text = stream.read(length).decode()
        return self._put_list(artifact, text, asked)

    def _put_block(
        self, artifact: FakeArtifact, block: str, asked: Asked, stream: BufferedIOBase, length: int
    ) -> Answer:
        base64.b64decode(block, validate=True)
        if asked.headers.get("x-ms-version", "") < "2021-08-06":
            return Answer(400, {"message": "x-ms-version"})
        name = hashlib.sha256(f"{artifact.number} {block}".encode()).hexdigest()
        path = Path(self._folder.name) / name
        left = length
        with path.open("wb") as out:
            while left:
                part = stream.read(min(left, 1 << 20))
                if not part:
                    return Answer(400, {"message": "too short"})
                if part == _ZEROS[: len(part)]:
                    out.seek(len(part), os.SEEK_CUR)  # a hole: big files must not fill the disk
                else:
                    out.write(part)
                left -= len(part)
            out.truncate(length)
        with self._lock:
            self.puts.append(("block", block, length))
        return Answer(201)

    def _put_list(self, artifact: FakeArtifact, text: str, asked: Asked) -> Answer:
        artifact.block_ids = [item.text or "" for item in ET.fromstring(text)]
        artifact.blob_type = asked.headers.get("x-ms-blob-content-type", "")
        with self._lock:
            self.puts.append(("list", "", len(text)))
        with self.path_of(artifact.name).open("wb") as out:
            for block in artifact.block_ids:
                name = hashlib.sha256(f"{artifact.number} {block}".encode()).hexdigest()
                _append(Path(self._folder.name) / name, out)
            out.truncate(out.tell())
        return Answer(201)


def _append(path: Path, out: IO[bytes]) -> None:
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            if part == _ZEROS[: len(part)]:
                out.seek(len(part), os.SEEK_CUR)
            else:
                out.write(part)
    path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
