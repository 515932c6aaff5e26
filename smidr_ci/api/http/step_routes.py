"""`POST /api/v1/github/steps`: the build that a step of a GitHub workflow orders."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from smidr_ci.api.github_steps import GitHubSteps, StepClaim
from smidr_ci.api.http.errors import json_answer
from smidr_ci.api.http.models import StartBuild
from smidr_ci.api.http.service import CallerOf, ServiceOf
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.views import record_as_dict
from smidr_ci.errors import UsageError

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["builds"])


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
