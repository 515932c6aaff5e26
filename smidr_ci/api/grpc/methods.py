"""The methods of the service `Smidr`: messages in, `Operations`, messages out."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from smidr_ci.api.artifact_files import OpenArtifact
from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.growth import LogTails, Subscribe, ViewTails, tail_start
from smidr_ci.api.grpc import convert
from smidr_ci.api.grpc.endpoint import Endpoint, Limits, blocking
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.api.limits import MAX_BUNDLE_BYTES, MAX_CONFIG_BYTES
from smidr_ci.api.operations import Operations
from smidr_ci.builds.logbook import CHUNK_BYTES
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import HostError, UsageError

__all__ = ["MAX_START_BYTES", "SERVICE", "Methods"]

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Smidr"].full_name
MAX_START_BYTES: Final = MAX_BUNDLE_BYTES + MAX_CONFIG_BYTES + (1 << 20)
"""Bundle, config, and whatever else a StartBuildRequest may have."""
_STARTS_AT_ONCE: Final = 4
_START_TIMEOUT_S: Final = 300.0
_PAGE: Final = 50
_MAX_TAIL: Final = 1_000_000

_Result = TypeVar("_Result")


class Methods:
    """Each method takes the caller and a request; blocking work goes to `pool`."""

    def __init__(self, operations: Operations, pool: Executor) -> None:
        self._operations = operations
        self._pool = pool
        self._logs = LogTails(pool)
        self._views = ViewTails(pool)
        self._agent_run = secrets.token_hex(8)
        self._last: tuple[int, bytes, bytes] | None = None

    def handlers(self, endpoint: Endpoint) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """A handler for each method of the service, by its name there."""
        starting = Limits(
            max_bytes=MAX_START_BYTES,
            at_once=asyncio.Semaphore(_STARTS_AT_ONCE),
            scope=Scope.BUILD,
            timeout_s=_START_TIMEOUT_S,
        )
        return {
            "StartBuild": endpoint.handler(self.start, pb.StartBuildRequest, starting),
            "GetBuildStatus": endpoint.handler(self.build_status, pb.GetBuildStatusRequest),
            "GetBuild": endpoint.handler(self.get, pb.GetBuildRequest),
            "WatchBuild": endpoint.handler(self.watch, pb.WatchBuildRequest),
            "StreamLogs": endpoint.handler(self.logs, pb.StreamLogsRequest),
            "ListBuilds": endpoint.handler(self.list, pb.ListBuildsRequest),
            "CancelBuild": endpoint.handler(self.cancel, pb.CancelBuildRequest),
            "ListArtifacts": endpoint.handler(self.artifacts, pb.ListArtifactsRequest),
            "DownloadArtifact": endpoint.handler(self.download, pb.DownloadArtifactRequest),
            "DeleteBuild": endpoint.handler(self.delete, pb.DeleteBuildRequest),
            "PurgeBuilds": endpoint.handler(self.purge, pb.PurgeBuildsRequest),
            "GetAgentStatus": endpoint.handler(self.status, pb.GetAgentStatusRequest),
            "Drain": endpoint.handler(self.drain, pb.DrainRequest),
            "StopAgent": endpoint.handler(self.stop, pb.StopAgentRequest),
        }

    async def start(self, caller: Caller, request: pb.StartBuildRequest) -> Message:
        """Queue a build."""
        record = await self._do(
            lambda: self._operations.start(caller, convert.start_request_from(request))
        )
        return pb.StartBuildResponse(build=convert.build_message(record))

    async def get(self, caller: Caller, request: pb.GetBuildRequest) -> Message:
        """One build."""
        record = await self._do(lambda: self._operations.get(caller, request.build_id))
        return pb.GetBuildResponse(build=convert.build_message(record))

    async def build_status(self, caller: Caller, request: pb.GetBuildStatusRequest) -> Message:
        """A build's state and progress."""
        view = await self._do(lambda: self._operations.view(caller, request.build_id))
        return pb.GetBuildStatusResponse(
            build=convert.summary_message(view.record),
            progress=None if view.progress is None else convert.progress_message(view.progress),
            waiting_for=view.waiting_for,
        )

    async def watch(
        self, caller: Caller, request: pb.WatchBuildRequest
    ) -> AsyncIterator[pb.WatchBuildResponse]:
        """The build now and after changes."""
        first = await self._do(lambda: self._operations.view(caller, request.build_id))
        build_id = first.record.build_id
        after = request.after_note if request.agent_run == self._agent_run else 0
        sent: BuildRecord | None = None
        view = partial(self._operations.view, caller, build_id)
        views = self._views.watch(build_id, view, self._subscriber(caller, build_id))
        async with aclosing(views) as changes:
            async for item in changes:
                response = convert.watch_message(item, after_note=after, agent_run=self._agent_run)
                if item.record != sent:
                    sent = item.record
                    response.build.CopyFrom(convert.build_message(sent))
                after = max((note.number for note in item.notes), default=after)
                yield response

    async def logs(self, caller: Caller, request: pb.StreamLogsRequest) -> AsyncIterator[bytes]:
        """A build's console, as serialized responses."""
        build_id, path = await self._do(lambda: self._operations.log_path(caller, request.build_id))
        offset = _within(request.offset, "offset", 2**62)
        if request.WhichOneof("start") == "tail_lines":
            lines = _within(request.tail_lines, "tail_lines", _MAX_TAIL)
            offset = await self._do(lambda: tail_start(path, lines))
        # A client then knows where to go on, even if the log has not begun.
        yield pb.StreamLogsResponse(offset=offset).SerializeToString()
        if request.follow:
            is_over = partial(self._operations.is_over, build_id)
            subscribe = self._subscriber(caller, build_id)
            chunks = self._logs.follow(path, offset, is_over, subscribe)
        else:
            chunks = self._logs.read(path, offset)
        async with aclosing(chunks) as pieces:
            async for start, data in pieces:
                yield self._packed(start, data)

    async def list(self, caller: Caller, request: pb.ListBuildsRequest) -> Message:
        """A page of builds."""
        limit = request.page_size or _PAGE
        if request.state not in pb.BuildState.values():
            raise UsageError(f"there is no state {request.state}")
        state = convert.enum_from(pb.BuildState.DESCRIPTOR, BuildState, request.state)
        records = await self._do(
            lambda: self._operations.list(
                caller,
                limit=limit,
                state=state,
                customer=request.customer or None,
                before=request.page_token or None,
            )
        )
        return pb.ListBuildsResponse(
            builds=[convert.summary_message(record) for record in records],
            next_page_token=records[-1].build_id if len(records) == limit else "",
        )

    async def cancel(self, caller: Caller, request: pb.CancelBuildRequest) -> Message:
        """Ask for a stop."""
        level = _CANCEL_LEVELS.get(request.level)
        if level is None:
            raise UsageError(f"there is no cancel level {request.level}")
        record = await self._do(lambda: self._operations.cancel(caller, request.build_id, level))
        return pb.CancelBuildResponse(build=convert.build_message(record))

    async def artifacts(self, caller: Caller, request: pb.ListArtifactsRequest) -> Message:
        """What a build left."""
        found = await self._do(lambda: self._operations.artifacts(caller, request.build_id))
        return pb.ListArtifactsResponse(
            artifacts=[convert.artifact_message(item) for item in found]
        )

    async def download(
        self, caller: Caller, request: pb.DownloadArtifactRequest
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """One artifact, from an offset."""
        opened = await self._do(
            lambda: self._operations.open_artifact(caller, request.build_id, request.path)
        )
        try:
            offset = _within(request.offset, "offset", opened.size_bytes)
            yield pb.DownloadArtifactResponse(
                artifact=pb.Artifact(
                    path=opened.path, size_bytes=opened.size_bytes, sha256=opened.sha256
                ),
                offset=offset,
            )
            while offset < opened.size_bytes:
                data = await self._do(partial(_piece, opened, offset))
                yield pb.DownloadArtifactResponse(offset=offset, data=data)
                offset += len(data)
        finally:
            opened.file.close()

    async def delete(self, caller: Caller, request: pb.DeleteBuildRequest) -> Message:
        """Hide a build that is over."""
        await self._do(lambda: self._operations.delete(caller, request.build_id))
        return pb.DeleteBuildResponse()

    async def purge(self, caller: Caller, request: pb.PurgeBuildsRequest) -> Message:
        """Remove hidden builds."""
        before = None
        if request.HasField("deleted_before"):
            try:
                before = convert.moment_from(request.deleted_before)
            except ValueError as error:
                raise UsageError(f"deleted_before is no time: {error}") from error
        gone = await self._do(lambda: self._operations.purge(caller, before))
        return pb.PurgeBuildsResponse(build_ids=gone)

    async def status(self, caller: Caller, _: pb.GetAgentStatusRequest) -> Message:
        """The agent's own state."""
        status = await self._do(lambda: self._operations.status(caller))
        return pb.GetAgentStatusResponse(status=convert.status_message(status))

    async def drain(self, caller: Caller, _: pb.DrainRequest) -> Message:
        """Take nothing new and end when what runs is over."""
        await self._do(lambda: self._operations.drain(caller))
        return pb.DrainResponse()

    async def stop(self, caller: Caller, request: pb.StopAgentRequest) -> Message:
        """End the agent."""
        cancels = request.cancel_builds
        await self._do(lambda: self._operations.stop(caller, cancel_builds=cancels))
        return pb.StopAgentResponse()

    def _packed(self, offset: int, data: bytes) -> bytes:
        """The response; made once for all followers that get the same chunk."""
        if self._last is None or self._last[0] != offset or self._last[1] is not data:
            response = pb.StreamLogsResponse(offset=offset, data=data)
            self._last = (offset, data, response.SerializeToString())
        return self._last[2]

    async def _do(self, call: Callable[[], _Result]) -> _Result:
        return await blocking(self._pool, call)

    def _subscriber(self, caller: Caller, build_id: str) -> Subscribe:
        return partial(self._operations.subscribe, caller, build_id)


_CANCEL_LEVELS: Final[dict[int, CancelLevel]] = {
    pb.CANCEL_LEVEL_UNSPECIFIED: CancelLevel.INTERRUPT,
    pb.CANCEL_LEVEL_GRACEFUL: CancelLevel.INTERRUPT,
    pb.CANCEL_LEVEL_NOW: CancelLevel.KILL,
}


def _within(number: int, what: str, largest: int) -> int:
    if not 0 <= number <= largest:
        raise UsageError(f"{what} is {number}; it must be from 0 to {largest}")
    return number


def _piece(opened: OpenArtifact, offset: int) -> bytes:
    data = os.pread(opened.file.fileno(), CHUNK_BYTES, offset)
    if not data:
        raise HostError(
            "the artifact became shorter while it was read",
            where=opened.path,
            hint="Ask for it again.",
        )
    return data
