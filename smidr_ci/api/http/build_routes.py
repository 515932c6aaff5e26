"""Builds: start, list, look at, cancel, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from smidr_ci.api.http.errors import json_answer
from smidr_ci.api.http.models import Artifacts, Builds, Cancel, StartBuild, StartByName
from smidr_ci.api.http.service import CallerOf, ServiceOf
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.builds.views import plain, record_as_dict, record_summary, view_as_dict
from smidr_ci.cancel import CancelLevel

__all__ = ["older", "router"]

router = APIRouter(prefix="/api/v1", tags=["builds"])
older = APIRouter(tags=["builds"])


@router.post(
    "/builds",
    summary="Start a build",
    status_code=201,
    responses={201: {"model": BuildRecord}},
)
async def start(service: ServiceOf, caller: CallerOf, order: StartBuild) -> Response:
    """Needs the scope `build`. The build is queued, and on disk, when the answer comes."""
    record = await service.call(lambda: service.operations.start(caller, order.request()))
    return _created(record)


@older.post(
    "/start_build",
    summary="Start a build, as clients of older tools do",
    status_code=201,
    responses={201: {"model": BuildRecord}},
)
async def start_by_name(service: ServiceOf, caller: CallerOf, order: StartByName) -> Response:
    """The same as `POST /api/v1/builds`, with fewer words."""
    record = await service.call(service.operations.start, caller, order.request())
    return _created(record)


@router.get("/builds", summary="History", responses={200: {"model": Builds}})
async def list_builds(
    service: ServiceOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    state: BuildState | None = None,
    customer: Annotated[str | None, Query(max_length=64)] = None,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Newest first. `before` is the last id of the page before, see `next` in the answer."""
    found = await service.call(
        service.operations.list,
        caller,
        limit=limit,
        state=state,
        customer=customer,
        before=before,
    )
    is_full = len(found) == limit
    next_page = found[-1].build_id if is_full else None
    return json_answer({"builds": [record_summary(item) for item in found], "next": next_page})


@router.get("/builds/{build_id}", summary="One build", responses={200: {"model": BuildRecord}})
async def get(service: ServiceOf, caller: CallerOf, build_id: str) -> Response:
    """All that history knows of it. An id may be a unique beginning."""
    record = await service.call(service.operations.get, caller, build_id)
    return json_answer(record_as_dict(record))


@router.get(
    "/builds/{build_id}/status",
    summary="One build as it is now",
    responses={200: {"model": BuildView}},
)
async def view(service: ServiceOf, caller: CallerOf, build_id: str) -> Response:
    """With BitBake's progress, what happened in preparation, and why it waits."""
    found = await service.call(service.operations.view, caller, build_id)
    return json_answer(view_as_dict(found))


@router.post(
    "/builds/{build_id}/cancel",
    summary="Cancel a build",
    status_code=202,
    responses={202: {"model": BuildRecord}},
)
async def cancel(
    service: ServiceOf, caller: CallerOf, build_id: str, how: Cancel | None = None
) -> Response:
    """Needs the scope `build`. A build that is over stays as it is."""
    level = CancelLevel[how.level.upper()] if how else CancelLevel.INTERRUPT
    record = await service.call(service.operations.cancel, caller, build_id, level)
    return json_answer(record_as_dict(record), 202)


@router.get(
    "/builds/{build_id}/artifacts",
    summary="What a build left",
    responses={200: {"model": Artifacts}},
)
async def artifacts(service: ServiceOf, caller: CallerOf, build_id: str) -> Response:
    """Paths with sizes and SHA-256; empty when they were removed."""
    record = await service.call(service.operations.get, caller, build_id)
    build_id = record.build_id
    found = await service.call(service.operations.artifacts, caller, build_id)
    directory = await service.call(service.operations.artifacts_directory, caller, build_id)
    answer = {"build_id": build_id, "artifacts": plain(found), "directory": directory}
    return json_answer(answer)


@router.get(
    "/builds/{build_id}/summary",
    summary="What to read of a build",
    response_class=Response,
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}},
)
async def summary(service: ServiceOf, caller: CallerOf, build_id: str) -> Response:
    """In Markdown: the result, its cause, and what differs from the build before."""
    text = await service.call(service.operations.summary, caller, build_id)
    return Response(text.encode(errors="replace"), media_type="text/markdown")


@router.delete("/builds/{build_id}", summary="Delete a build", status_code=204)
async def delete(service: ServiceOf, caller: CallerOf, build_id: str) -> Response:
    """Needs the scope `admin`. It is hidden; `POST /api/v1/purge` removes it for good."""
    await service.call(service.operations.delete, caller, build_id)
    return Response(status_code=204)


def _created(record: BuildRecord) -> Response:
    where = {"Location": f"/api/v1/builds/{record.build_id}"}
    return json_answer(record_as_dict(record), 201, where)
