"""The client that commands use: HTTP over the agent's unix socket, or over TCP.

Only the standard library is imported, so that commands start fast.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.client import StartRequest
from smidr_ci.api.download import download
from smidr_ci.api.patience import Patience
from smidr_ci.api.wire import Wire, quoted
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.builds.views import from_plain, record_from_dict, view_from_dict
from smidr_ci.cancel import CancelLevel
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import AgentUnreachableError, BusyError, InternalError, NotFoundError
from smidr_ci.home import Home

if TYPE_CHECKING:
    import ssl

__all__ = ["LocalClient", "find_agent"]

Result = TypeVar("Result")

_ROOT: Final = "/api/v1"
_RECONNECT_S: Final = 60.0
_HEARTBEATS_S: Final = 45.0
"""An agent that watches something for us writes at least every fifteen seconds."""
_START_S: Final = 300.0
_LOST: Final = (AgentUnreachableError, BusyError)


class LocalClient:
    """An `api.client.AgentClient`; thread-safe.

    `address` is a unix socket's path, or `http(s)://HOST:PORT`, which needs a token. Streams and
    downloads try for `reconnect_s` to come back to an agent that went away.
    """

    def __init__(
        self,
        address: Path | str,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        clock: Clock | None = None,
        reconnect_s: float = _RECONNECT_S,
    ) -> None:
        self._wire = Wire(address, token, tls)
        self._clock = clock or SystemClock()
        self._reconnect_s = reconnect_s

    def status(self) -> AgentStatus:
        """The agent's own state."""
        return self._read(lambda raw: from_plain(AgentStatus, raw), self._get("/agent"))

    def start(self, request: StartRequest) -> BuildRecord:
        """Queue a build; its record. A connection lost in between leaves it open whether it was."""
        body: dict[str, Any] = {
            "customer": request.customer,
            "config_text": request.config_text,
            "config_name": request.config_name,
            "targets": list(request.targets),
            "clean": request.clean,
            "fresh": request.fresh,
            "ref": request.ref,
            "clean_image": request.clean_image,
            "fetch_only": request.fetch_only,
            "locked": request.locked,
            "keep_workspace": request.keep_workspace,
            "is_untrusted": request.is_untrusted,
            "variables": dict(request.variables),
            "environment": dict(request.environment),
            "bundle": base64.b64encode(request.bundle).decode(),
            "directory": str(request.directory) if request.directory else None,
        }
        return self._read(record_from_dict, self._post("/builds", body, timeout_s=_START_S))

    def get(self, build_id: str) -> BuildRecord:
        """One build, whole."""
        return self._read(record_from_dict, self._get(f"/builds/{_id(build_id)}"))

    def list(
        self,
        *,
        limit: int = 50,
        state: BuildState | None = None,
        customer: str | None = None,
        before: str | None = None,
    ) -> list[BuildRecord]:
        """Summaries, newest first; `before` is the last id of the previous page."""
        raw = self._get(
            "/builds", limit=limit, state=state and str(state), customer=customer, before=before
        )
        return self._read(lambda page: [record_from_dict(item) for item in page["builds"]], raw)

    def watch(self, build_id: str) -> Iterator[BuildView]:
        """The build now and after each change, until it is over; the last view is final.

        Each view has only the notes that earlier views of this call did not have.
        """
        patience = Patience(self._clock, self._reconnect_s)
        notes_after, instance, last = 0, "", None
        while True:
            path = f"{_ROOT}/builds/{_id(build_id)}/watch"
            query = {"notes_after": notes_after, "instance": instance}
            try:
                with self._wire.ask("GET", path, query=query, timeout_s=_HEARTBEATS_S) as answer:
                    if answer.headers["X-Smidr-Instance"] != instance:
                        instance, notes_after = answer.headers["X-Smidr-Instance"], 0
                    for line in answer.lines():
                        patience.succeeded()
                        if not line:
                            continue
                        view = self._read(view_from_dict, self._read(json.loads, line))
                        build_id = view.record.build_id
                        if view.notes:
                            notes_after = view.notes[-1].number
                        if last is None or view.notes or replace(view, notes=()) != last:
                            yield view
                        last = replace(view, notes=())
                        if view.record.state.is_final:
                            return
                raise AgentUnreachableError("the agent told too little", where=self._wire.where)
            except _LOST as error:
                patience.wait_after(error)

    def logs(
        self, build_id: str, *, offset: int = 0, tail: int | None = None, follow: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Chunks of the console with their offsets; `tail` begins so many lines before the end.

        A log that begins anew, for another attempt of the build, comes again from offset 0.
        """
        patience = Patience(self._clock, self._reconnect_s)
        wait_s, is_over = None if follow else 60.0, False
        while not is_over:
            path = f"{_ROOT}/builds/{_id(build_id)}/log"
            query = {"offset": offset, "tail": tail, "follow": "true" if follow else None}
            try:
                with self._wire.ask("GET", path, query=query, timeout_s=wait_s) as answer:
                    patience.succeeded()
                    build_id = answer.headers["X-Smidr-Build"] or build_id
                    offset, tail = self._read(int, answer.headers["X-Smidr-Offset"]), None
                    for chunk in answer.pieces():
                        patience.succeeded()
                        yield offset, chunk
                        offset += len(chunk)
                is_over = True
            except _LOST as error:
                patience.wait_after(error)

    def cancel(self, build_id: str, level: CancelLevel = CancelLevel.INTERRUPT) -> BuildRecord:
        """Ask for a stop; the record as it is now."""
        raw = self._post(f"/builds/{_id(build_id)}/cancel", {"level": level.name.lower()})
        return self._read(record_from_dict, raw)

    def artifacts(self, build_id: str) -> tuple[ArtifactRecord, ...]:
        """What the build left."""
        return self._artifacts(build_id)[1]

    def download(
        self, build_id: str, path: str, target: Path, progress: Callable[[int], None]
    ) -> None:
        """Bring one artifact to `target`, checked against its SHA-256; goes on where it stopped.

        `progress` gets the bytes that are there.
        """
        full_id, artifacts = self._artifacts(build_id)
        chosen = next((item for item in artifacts if item.path == path), None)
        if chosen is None:
            raise NotFoundError(
                f"build {full_id} has no artifact {path[:200]!r}",
                hint=f"`smidr client artifacts list --build-id {full_id}` shows what it has.",
            )
        patience = Patience(self._clock, self._reconnect_s)
        patience.succeeded()  # the list came
        url_path = f"{_ROOT}/builds/{_id(full_id)}/artifacts/{quoted(path)}"
        download(self._wire, url_path, chosen, target, patience, progress)

    def delete(self, build_id: str) -> None:
        """Hide a build that is over, with its log and artifacts."""
        with self._wire.ask("DELETE", f"{_ROOT}/builds/{_id(build_id)}"):
            pass

    def purge(self, deleted_before: datetime | None = None) -> tuple[str, ...]:
        """Remove hidden builds for good; their ids."""
        before = deleted_before.isoformat() if deleted_before else None
        raw = self._post("/purge", {"deleted_before": before}, timeout_s=_START_S)
        return self._read(lambda answer: tuple(map(str, answer["purged"])), raw)

    def drain(self) -> None:
        """Let the agent finish what runs, take nothing new, and end."""
        self._post("/agent/drain", None)

    def stop(self, *, cancel_builds: bool = False) -> None:
        """End the agent; what runs goes on and is taken up by the next one, or is cancelled."""
        self._post("/agent/stop", {"cancel_builds": cancel_builds})

    def close(self) -> None:
        """Nothing is held between calls."""

    def answers(self, timeout_s: float = 5.0) -> bool:
        """Whether an agent is there at all."""
        try:
            with self._wire.ask("GET", "/healthz", timeout_s=timeout_s) as answer:
                return answer.status == 200
        except AgentUnreachableError:
            return False

    def _artifacts(self, build_id: str) -> tuple[str, tuple[ArtifactRecord, ...]]:
        raw = self._get(f"/builds/{_id(build_id)}/artifacts")
        found = self._read(
            lambda answer: [from_plain(ArtifactRecord, item) for item in answer["artifacts"]], raw
        )
        return str(raw["build_id"]), tuple(found)

    def _get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON
        with self._wire.ask("GET", _ROOT + path, query=query) as answer:
            return answer.json()

    def _post(self, path: str, body: object, timeout_s: float = 60.0) -> Any:  # noqa: ANN401 - JSON
        with self._wire.ask("POST", _ROOT + path, body=body, timeout_s=timeout_s) as answer:
            return answer.json()

    def _read(self, reader: Callable[[Any], Result], raw: Any) -> Result:  # noqa: ANN401 - JSON
        try:
            return reader(raw)
        except (LookupError, TypeError, ValueError) as error:
            raise InternalError(
                f"the agent's answer is not understood: {error}",
                where=self._wire.where,
                hint="Is it another version of smidr?",
            ) from error


def find_agent(home: Home) -> LocalClient | None:
    """The agent of this host's home; None when none answers, whatever it left behind."""
    if not home.socket.exists():
        return None
    client = LocalClient(home.socket)
    return client if client.answers() else None


def _id(build_id: str) -> str:
    return quoted(build_id).replace("/", "%2F")
