"""The agent itself: its state, its end, its health."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.callers import Scope
from smidr_ci.api.http.errors import json_answer
from smidr_ci.api.http.models import Accepted, Healthy, Purge, Purged, Ready, Stop
from smidr_ci.api.http.service import CallerOf, ServiceOf
from smidr_ci.builds.views import plain
from smidr_ci.errors import UsageError

__all__ = ["figures", "health", "router"]

router = APIRouter(prefix="/api/v1", tags=["agent"])
health = APIRouter(tags=["health"])
figures = APIRouter(tags=["health"])


@router.get("/agent", summary="The agent's own state", responses={200: {"model": AgentStatus}})
async def status(service: ServiceOf, caller: CallerOf) -> Response:
    """Running and waiting builds, why those wait, addresses, deliveries, problems."""
    found = await service.call(service.operations.status, caller)
    return json_answer(plain(found))


@router.post(
    "/agent/drain",
    summary="Finish what runs, take nothing new, and end",
    status_code=202,
    responses={202: {"model": Accepted}},
)
async def drain(service: ServiceOf, caller: CallerOf) -> Response:
    """Needs the scope `admin`."""
    await service.call(service.operations.drain, caller)
    return json_answer({"accepted": True}, 202)


@router.post(
    "/agent/stop",
    summary="End the agent",
    status_code=202,
    responses={202: {"model": Accepted}},
)
async def stop(service: ServiceOf, caller: CallerOf, how: Stop | None = None) -> Response:
    """Needs the scope `admin`. Builds go on without the agent unless they are cancelled."""
    cancel_builds = how is not None and how.cancel_builds
    await service.call(service.operations.stop, caller, cancel_builds=cancel_builds)
    return json_answer({"accepted": True}, 202)


@router.post("/purge", summary="Remove deleted builds for good", responses={200: {"model": Purged}})
async def purge(service: ServiceOf, caller: CallerOf, which: Purge | None = None) -> Response:
    """Needs the scope `admin`. Records, logs and artifacts are gone then."""
    before = which.deleted_before if which else None
    if before is not None and before.tzinfo is None:
        raise UsageError("deleted_before has no time zone", hint="Add Z for UTC.")
    gone = await service.call(service.operations.purge, caller, before)
    return json_answer({"purged": list(gone)})


@health.get("/healthz", summary="Whether the agent is alive", response_model=Healthy)
async def alive() -> Response:
    """Needs no token."""
    return json_answer({"status": "alive"})


@health.get(
    "/readyz",
    summary="Whether builds can start",
    responses={200: {"model": Ready}, 503: {"model": Ready}},
)
async def ready(service: ServiceOf) -> Response:
    """The store can be read, the container engine answers, the agent does not drain. No token."""
    problems = await service.call(service.health.problems)
    body = {"ready": not problems, "problems": list(problems)}
    return json_answer(body, 503 if problems else 200)


@figures.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: ServiceOf, caller: CallerOf) -> Response:
    """Prometheus' text format 0.0.4; needs the scope `read`."""
    caller.require(Scope.READ)
    text = await service.call(service.metrics)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
