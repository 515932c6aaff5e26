"""The HTTP API as an ASGI app. It belongs behind `server.HttpServer`, which says who connects."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

from fastapi import FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp

from smidr_ci import __version__
from smidr_ci.api.github_steps import GitHubSteps
from smidr_ci.api.growth import LogTails, ViewTails
from smidr_ci.api.health import Health
from smidr_ci.api.http import agent_routes, build_routes, file_routes, step_routes, webhook_routes
from smidr_ci.api.http.connection import Patience
from smidr_ci.api.http.errors import install
from smidr_ci.api.http.guard import Access, Guard, Limits
from smidr_ci.api.http.models import Error
from smidr_ci.api.http.service import Service
from smidr_ci.api.http.webhook_routes import Webhooks
from smidr_ci.api.operations import Operations

__all__ = ["make_app"]

_DESCRIPTION: Final = """\
Builds of Yocto and BitBake projects on one build host.

Over the agent's unix socket the kernel says who calls. Over TCP send `Authorization: Bearer TOKEN`;
`smidr token create` makes tokens with the scope `read`, `build` or `admin`, each of which includes
those before it. A build id may be a unique beginning. Times are ISO 8601 in UTC.
"""
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Error, "description": "What was asked makes no sense"},
    401: {"model": Error, "description": "No valid token"},
    403: {"model": Error, "description": "The caller may not do this"},
    404: {"model": Error, "description": "There is no such build or artifact"},
    408: {"model": Error, "description": "The request came too slowly"},
    409: {"model": Error, "description": "Not in the state that things are in"},
    413: {"model": Error, "description": "The request is too big"},
    422: {"model": Error, "description": "The request or the config has a fault"},
    429: {"model": Error, "description": "Asked too often"},
    503: {"model": Error, "description": "Not now: draining, full, or the host has a fault"},
}


def make_app(  # noqa: PLR0913 - the parts of an agent, by name
    operations: Operations,
    access: Access,
    pool: Executor,
    health: Health,
    metrics: Callable[[], bytes],
    *,
    patience: Patience | None = None,
    limits: Limits | None = None,
    webhooks: Webhooks | None = None,
    github_steps: GitHubSteps | None = None,
) -> ASGIApp:
    """The app with its guard. `pool` runs what blocks; `metrics` renders Prometheus' text."""
    api = FastAPI(
        title="smidr",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
        generate_unique_id_function=_name_of,
        redirect_slashes=False,
    )
    api.state.service = Service(operations, pool, LogTails(pool), ViewTails(pool), health, metrics)
    bearer = [Security(HTTPBearer(auto_error=False, description="Not over the unix socket."))]
    for router in (
        agent_routes.router,
        build_routes.router,
        build_routes.older,
        file_routes.router,
        agent_routes.figures,
    ):
        api.include_router(router, dependencies=bearer)
    api.include_router(agent_routes.health)
    if webhooks is not None:
        api.state.webhooks = webhooks
        api.include_router(webhook_routes.router)
    if github_steps is not None:
        api.state.github_steps = github_steps
        api.include_router(step_routes.router, dependencies=bearer)
    install(api)
    return Guard(api, access, pool, patience, limits)


def _name_of(route: APIRoute) -> str:
    return route.name
