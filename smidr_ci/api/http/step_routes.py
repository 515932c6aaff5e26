"""`/api/v1/github/`: a step of a workflow wants a build, and its artifacts uploaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from smidr_ci.api.github_steps import GitHubSteps, StepClaim, UploadClaim
from smidr_ci.api.http.errors import json_answer
from smidr_ci.api.http.models import StartBuild
from smidr_ci.api.http.service import CallerOf, ServiceOf
from smidr_ci.api.http.stream import Stream
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.views import record_as_dict
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import SmidrError, UsageError

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["builds"])
_HEARTBEAT_S: Final = 15.0


class StepModel(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Step(StepModel):
    """What a step says of itself, and GitHub's token that proves it."""

    server_url: str = Field(max_length=300)
    """GITHUB_SERVER_URL."""
    repository: str = Field(max_length=300)
    """GITHUB_REPOSITORY."""
    check_name: str = Field(max_length=200)
    """Of the check that shows the build."""
    workspace: str = Field(max_length=4096)
    """GITHUB_WORKSPACE; the config lies in it."""
    id_token: str = Field("", max_length=16_384)
    """The job's identity token for the audience `smidr`; empty without `id-token: write`."""


class StepOrder(StepModel):
    """A build, and the step that wants it."""

    build: StartBuild
    step: Step


class Started(StepModel):
    """The build is queued."""

    build: BuildRecord
    reason: str
    """Why it is trusted, or not."""


@router.post(
    "/github/steps",
    summary="Start the build of a workflow's step",
    status_code=201,
    responses={201: {"model": Started}},
)
async def start_step(
    request: Request, service: ServiceOf, caller: CallerOf, order: StepOrder
) -> Response:
    """Over the unix socket only. 404 when no registration serves the repository."""
    steps: GitHubSteps = request.app.state.github_steps
    if "\x00" in order.step.workspace:
        raise UsageError("the workspace has a zero byte")
    claim = StepClaim(
        server_url=order.step.server_url,
        repository=order.step.repository,
        check_name=order.step.check_name,
        workspace=Path(order.step.workspace),
        id_token=order.step.id_token,
    )
    started = await service.call(lambda: steps.start(caller, order.build.request(), claim))
    return json_answer({"build": record_as_dict(started.record), "reason": started.reason}, 201)


class Upload(StepModel):
    """Artifacts of a build that go to the run of a step."""

    server_url: str = Field(max_length=300)
    """GITHUB_SERVER_URL."""
    repository: str = Field(max_length=300)
    """GITHUB_REPOSITORY."""
    build_id: str = Field(max_length=64)
    paths: list[str] = Field(max_length=10_000)
    """As the list of the build's artifacts has them."""
    runtime_token: str = Field(max_length=16_384)
    """ACTIONS_RUNTIME_TOKEN."""
    results_url: str = Field(max_length=300)
    """ACTIONS_RESULTS_URL."""


@router.post(
    "/github/uploads",
    summary="Upload a build's artifacts to a workflow's run",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def upload(request: Request, caller: CallerOf, wanted: Upload) -> Response:
    """Over the unix socket only. Who breaks off ends the upload.

    One JSON object per line: `text` for the log, at last `report` or `error`; empty lines say
    "still there".
    """
    steps: GitHubSteps = request.app.state.github_steps
    claim = UploadClaim(
        server_url=wanted.server_url,
        repository=wanted.repository,
        build_id=wanted.build_id,
        paths=frozenset(wanted.paths),
        runtime_token=wanted.runtime_token,
        results_url=wanted.results_url,
    )
    cancel = CancelToken()
    return Stream(
        _told(partial(steps.upload, caller, claim, cancel)),
        media_type="application/x-ndjson",
        on_close=lambda: cancel.cancel("the step has gone", level=CancelLevel.KILL),
    )


async def _told(work: Any) -> AsyncGenerator[bytes, None]:  # noqa: ANN401 - upload, without `say`
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def tell(line: dict[str, Any] | None) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def run() -> None:
        try:
            report = work(lambda text: tell({"text": text}))
        except SmidrError as error:
            tell({"error": {"kind": str(error.kind), "message": error.message, "hint": error.hint}})
        else:
            stored = [[item.path, found.name] for item, found in report.uploaded]
            placed = [[item.path, place] for item, place in report.placed]
            found = {"uploaded": stored, "placed": placed, "warnings": list(report.warnings)}
            tell({"report": found})
        finally:
            tell(None)

    working = asyncio.ensure_future(asyncio.to_thread(run))  # not a thread of the pool: it is long
    while True:
        try:
            async with asyncio.timeout(_HEARTBEAT_S):
                line = await lines.get()
        except TimeoutError:
            yield b"\n"
            continue
        if line is None:
            break
        yield json.dumps(line).encode() + b"\n"
    await working
