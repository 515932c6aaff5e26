"""An agent at a gRPC address, as the port `AgentClient`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import grpc

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc import convert
from smidr_ci.api.grpc.channel import Connection
from smidr_ci.api.grpc.download import PartialFile
from smidr_ci.api.grpc.failures import Status, error_from
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.api.grpc.generated.smidr_pb2_grpc import SmidrStub
from smidr_ci.api.grpc.resume import resumed
from smidr_ci.api.tls import ClientTls
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import HostError, NotFoundError, UsageError

__all__ = ["GrpcClient"]

_TIMEOUT_S: Final = 30.0
_START_TIMEOUT_S: Final = 300.0
_PATIENCE_S: Final = 60.0
_PAGE: Final = 500
_LEVELS: Final = {
    CancelLevel.INTERRUPT: pb.CANCEL_LEVEL_GRACEFUL,
    CancelLevel.KILL: pb.CANCEL_LEVEL_NOW,
}


class GrpcClient:
    """Implements `AgentClient`; safe from several threads.

    `address` is one of `channel.Connection`. Streams reconnect until nothing has come for
    `patience_s`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls: ClientTls | None = None,
        patience_s: float = _PATIENCE_S,
        clock: Clock | None = None,
    ) -> None:
        self._connection = Connection(address, token=token, tls=tls)
        # protoc writes it without types
        self._stub: Any = SmidrStub(self._connection.channel)  # type: ignore[no-untyped-call]
        self._patience_s = patience_s
        self._clock = clock or SystemClock()

    def status(self) -> AgentStatus:
        """The agent's own state."""
        reply: pb.GetAgentStatusResponse = self._call("GetAgentStatus", pb.GetAgentStatusRequest())
        return convert.status_from(reply.status)

    def start(self, request: StartRequest) -> BuildRecord:
        """Queue a build; `request` must not name a directory."""
        if request.directory is not None:
            raise UsageError(
                "over gRPC an order can't name a directory of the agent's host",
                hint="Send what the config's paths name as a bundle.",
            )
        message = convert.start_message(request)
        reply: pb.StartBuildResponse = self._call("StartBuild", message, _START_TIMEOUT_S)
        return convert.record_from(reply.build)

    def get(self, build_id: str) -> BuildRecord:
        """One build, whole."""
        request = pb.GetBuildRequest(build_id=build_id)
        reply: pb.GetBuildResponse = self._call("GetBuild", request)
        return convert.record_from(reply.build)

    def list(
        self,
        *,
        limit: int = 50,
        state: BuildState | None = None,
        customer: str | None = None,
        before: str | None = None,
    ) -> list[BuildRecord]:
        """Summaries, newest first, page after page up to `limit`."""
        found: list[BuildRecord] = []
        token = before or ""
        while len(found) < limit:
            request = pb.ListBuildsRequest(
                page_size=min(limit - len(found), _PAGE),
                page_token=token,
                state=pb.BuildState.Name(convert.enum_value(pb.BuildState.DESCRIPTOR, state)),
                customer=customer or "",
            )
            reply: pb.ListBuildsResponse = self._call("ListBuilds", request)
            found += [convert.record_from(item) for item in reply.builds]
            token = reply.next_page_token
            if not token:
                break
        return found

    def watch(self, build_id: str) -> Iterator[BuildView]:
        """The build now and after each change, until it is over."""
        request = pb.WatchBuildRequest(build_id=build_id)
        record: BuildRecord | None = None
        seen: BuildView | None = None
        for response in self._resumed("WatchBuild", request):
            if response.HasField("build"):
                record = convert.record_from(response.build)
            if record is None:
                raise HostError("the agent's first answer has no build")
            view = convert.view_from(response, record)
            request.agent_run = response.agent_run
            if view.notes:
                request.after_note = view.notes[-1].number
            # After a lost connection the agent says again what it said last.
            known = None if seen is None else replace(seen, version=view.version, notes=())
            seen = view
            if view != known:
                yield view

    def logs(
        self, build_id: str, *, offset: int = 0, tail: int | None = None, follow: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Chunks of the console with their offsets."""
        request = pb.StreamLogsRequest(build_id=build_id, follow=follow)
        if tail is None:
            request.offset = offset
        else:
            request.tail_lines = tail
        for response in self._resumed("StreamLogs", request):
            request.offset = response.offset + len(response.data)
            if response.data:
                yield response.offset, response.data

    def cancel(self, build_id: str, level: CancelLevel = CancelLevel.INTERRUPT) -> BuildRecord:
        """Ask for a stop; the record as it is now."""
        if level not in _LEVELS:
            raise UsageError("a cancel has the level interrupt or kill")
        request = pb.CancelBuildRequest(build_id=build_id, level=_LEVELS[level])
        reply: pb.CancelBuildResponse = self._call("CancelBuild", request)
        return convert.record_from(reply.build)

    def artifacts(self, build_id: str) -> tuple[ArtifactRecord, ...]:
        """What the build left."""
        request = pb.ListArtifactsRequest(build_id=build_id)
        reply: pb.ListArtifactsResponse = self._call("ListArtifacts", request)
        return tuple(convert.artifact_from(item) for item in reply.artifacts)

    def download(
        self, build_id: str, path: str, target: Path, progress: Callable[[int], None]
    ) -> None:
        """Bring one artifact to `target` by way of `<target>.part`, checked by its SHA-256."""
        artifact = next((item for item in self.artifacts(build_id) if item.path == path), None)
        if artifact is None:
            raise NotFoundError(f"the build has no artifact {path[:200]!r}", where=build_id)
        with PartialFile.of(target) as part:
            if part.size > artifact.size_bytes:
                part.clear()
            is_continued = part.size > 0
            self._fetch(build_id, artifact, part, progress)
            if not part.has_all(artifact) and is_continued:
                # What was there belonged to another file.
                part.clear()
                self._fetch(build_id, artifact, part, progress)
            if not part.has_all(artifact):
                part.clear()
                raise HostError(
                    "what came is not what the agent lists: its SHA-256 is another",
                    where=path,
                    hint="Try again. If it stays so, the agent's disk may be damaged.",
                )
            part.finish()

    def delete(self, build_id: str) -> None:
        """Hide a build that is over."""
        self._call("DeleteBuild", pb.DeleteBuildRequest(build_id=build_id))

    def purge(self, deleted_before: datetime | None = None) -> tuple[str, ...]:
        """Remove hidden builds for good; their ids."""
        request = pb.PurgeBuildsRequest(deleted_before=convert.moment_message(deleted_before))
        reply: pb.PurgeBuildsResponse = self._call("PurgeBuilds", request, _START_TIMEOUT_S)
        return tuple(reply.build_ids)

    def drain(self) -> None:
        """Let the agent finish what runs, take nothing new, and end."""
        self._call("Drain", pb.DrainRequest())

    def stop(self, *, cancel_builds: bool = False) -> None:
        """End the agent."""
        self._call("StopAgent", pb.StopAgentRequest(cancel_builds=cancel_builds))

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def _fetch(
        self,
        build_id: str,
        artifact: ArtifactRecord,
        part: PartialFile,
        progress: Callable[[int], None],
    ) -> None:
        request = pb.DownloadArtifactRequest(
            build_id=build_id, path=artifact.path, offset=part.size
        )
        for response in self._resumed("DownloadArtifact", request):
            part.add(response.offset, response.data)
            request.offset = response.offset + len(response.data)
            progress(request.offset)

    def _call(self, name: str, request: object, timeout_s: float = _TIMEOUT_S) -> Any:  # noqa: ANN401 - the stub has no types
        try:
            return getattr(self._stub, name)(
                request, timeout=timeout_s, metadata=self._connection.metadata
            )
        except grpc.RpcError as error:
            raise error_from(cast("Status", error), self._connection.address) from None

    def _resumed(self, name: str, request: object) -> Iterator[Any]:
        """Responses; the request is looked at each time that the stream is opened."""
        method = getattr(self._stub, name)
        return resumed(
            partial(method, request, metadata=self._connection.metadata),
            self._connection.address,
            self._clock,
            self._patience_s,
        )
