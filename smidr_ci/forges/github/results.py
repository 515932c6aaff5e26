"""GitHub's results service, where a job's artifacts go (version 4, twirp with JSON).

The calls are those of `@actions/artifact` 6: CreateArtifact, FinalizeArtifact, ListArtifacts and
DeleteArtifact of `github.actions.results.api.v1.ArtifactService`.
"""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.sender import USER_AGENT
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport, shown_url

__all__ = ["Created", "ResultsService", "RuntimeToken", "StoredArtifact", "is_passing"]

_SERVICE: Final = "/twirp/github.actions.results.api.v1.ArtifactService/"
_VERSION: Final = 7
_ATTEMPTS: Final = 5
_FIRST_WAIT_S: Final = 3.0
_FACTOR: Final = 1.5
_PASSING: Final = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RuntimeToken:
    """ACTIONS_RUNTIME_TOKEN of one job. It is kept in memory only, and dies with the job."""

    text: str = field(repr=False)
    run: str
    job: str

    @classmethod
    def of(cls, text: str) -> RuntimeToken:
        """Read the ids in it; raises `ForgeError` for one that is no good for artifacts."""
        try:
            payload = text.split(".")[1]
            raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
            scopes = str(json.loads(raw)["scp"]).split()
        except (IndexError, ValueError, KeyError, TypeError, RecursionError):
            scopes = []
        for scope in scopes:
            name, *ids = scope.split(":")
            if name == "Actions.Results" and len(ids) == 2 and all(ids):
                return cls(text, *ids)
        raise ForgeError(
            "the job's runtime token is not good for artifacts",
            hint="Only a JavaScript action gets one with the scope Actions.Results.",
        )


@dataclass(frozen=True)
class Created:
    """An artifact that waits for its content."""

    name: str
    upload_url: str = field(repr=False)
    """Signed: whoever has it may write."""


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact that is there."""

    name: str
    artifact_id: int
    size_bytes: int
    digest: str
    """`sha256:` and hex digits."""


class ResultsService:
    """Artifacts of one job; all methods raise `ForgeError`, and repeat calls by themselves."""

    def __init__(
        self,
        site: Site,
        url: str,
        token: RuntimeToken,
        transport: Transport,
        *,
        pause: Pause | None = None,
    ) -> None:
        """`url` is the job's ACTIONS_RESULTS_URL: refused unless it is this GitHub's own."""
        if not site.serves_results(url):
            why = (
                "GitHub Enterprise Server has no artifact service for programs"
                if site.is_server
                else f"{shown_url(url)} is not GitHub's results service"
            )
            raise ForgeError(
                f"artifacts can't be uploaded: {why}",
                hint="They stay on the build host; see 'smidr artifacts list'.",
            )
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.netloc}{_SERVICE}"
        self._token = token
        self._transport = transport
        self._pause = pause or threading.Event().wait

    def create(self, name: str, mime_type: str) -> Created | None:
        """Announce an artifact; None when there is one with this name."""
        body: dict[str, str | int] = {"name": name, "version": _VERSION, "mime_type": mime_type}
        reply, attempts = self._call("CreateArtifact", body)
        if reply.status == 409 and attempts > 1 and self.find(name) is None:
            self.delete(name)  # made by the try whose answer was lost
            reply, _ = self._call("CreateArtifact", body)
        if reply.status == 409:
            return None
        found = self._good(reply, f"create the artifact {name}")
        url = found.get("signed_upload_url") or found.get("signedUploadUrl")
        if not isinstance(url, str):
            raise ForgeError("the answer has no upload URL", where=self._base)
        return Created(name, url)

    def finalize(self, name: str, size_bytes: int, digest: str) -> StoredArtifact:
        """Say that the content is there. After a lost answer GitHub's list tells whether it is."""
        body = {"name": name, "size": str(size_bytes), "hash": digest}
        wait = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                reply = self._once("FinalizeArtifact", body)
            except ForgeUnreachableError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                if not is_passing(reply) or attempt == _ATTEMPTS:
                    found = self._good(reply, f"finish the artifact {name}")
                    return StoredArtifact(name, _id_of(found), size_bytes, digest)
            self._pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads clients
            wait *= _FACTOR
            stored = self.find(name)
            if stored is not None and (stored.size_bytes, stored.digest) == (size_bytes, digest):
                return stored
        raise AssertionError("unreachable")

    def find(self, name: str) -> StoredArtifact | None:
        """The finished artifact with this name."""
        reply, _ = self._call("ListArtifacts", {"name_filter": name})
        listed = self._good(reply, "list the artifacts").get("artifacts")
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and item.get("name") == name:
                number = _id_of({"artifact_id": item.get("database_id", item.get("databaseId"))})
                size = int(item.get("size") or 0)
                return StoredArtifact(name, number, size, str(item.get("digest") or ""))
        return None

    def delete(self, name: str) -> None:
        """Remove one, finished or not; a missing one is fine."""
        reply, _ = self._call("DeleteArtifact", {"name": name})
        if reply.status != 404:
            self._good(reply, f"delete the artifact {name}")

    def _call(self, method: str, body: Mapping[str, str | int]) -> tuple[Reply, int]:
        """The last answer, and how many tries it took."""
        wait = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                reply = self._once(method, body)
                if not is_passing(reply) or attempt == _ATTEMPTS:
                    return reply, attempt
            except ForgeUnreachableError as error:
                if attempt == _ATTEMPTS or error.is_misconfigured:
                    raise
            self._pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads clients
            wait *= _FACTOR
        raise AssertionError("unreachable")

    def _once(self, method: str, body: Mapping[str, str | int]) -> Reply:
        ids = {
            "workflow_run_backend_id": self._token.run,
            "workflow_job_run_backend_id": self._token.job,
        }
        headers = {
            "Authorization": f"Bearer {self._token.text}",
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
        }
        raw = json.dumps({**ids, **body}).encode()
        return self._transport.exchange("POST", self._base + method, headers, raw)

    def _good(self, reply: Reply, action: str) -> dict[str, Any]:
        if not reply.is_success:
            raise _failure(reply, action)
        found = reply.object()
        if found.get("ok") is False:
            raise ForgeError(f"can't {action}: GitHub says no", where=reply.url)
        return found


def is_passing(reply: Reply) -> bool:
    """Whether another try may go better; a full quota stays full."""
    return reply.status in _PASSING and "insufficient usage" not in reply.message.lower()


def _failure(reply: Reply, action: str) -> ForgeError:
    hint = ""
    if reply.status == 401:
        hint = "The job's runtime token has expired; it lives little longer than the job's time."
    elif "insufficient usage" in reply.message.lower():
        hint = "The storage for artifacts is used up; see the billing page of the owner."
    return ForgeError(
        f"can't {action}: GitHub answers {reply.status}: {reply.message}",
        where=reply.url,
        hint=hint,
        status=reply.status,
    )


def _id_of(found: Mapping[str, Any]) -> int:
    text = str(found.get("artifact_id") or found.get("artifactId") or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
