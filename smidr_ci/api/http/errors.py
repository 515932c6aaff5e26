"""`SmidrError` as an HTTP answer: `{"error": {kind, message, where, hint}}` and a status."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from smidr_ci.errors import (
    BusyError,
    CancelledError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    HostError,
    LayerError,
    NotFoundError,
    SmidrError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
)

__all__ = ["answer_for", "error_answer", "install", "json_answer", "status_of"]

_STATUSES: Final[tuple[tuple[type[SmidrError], int], ...]] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (CancelledError, 409),
    (TooLargeError, 413),
    (ConfigError, 422),
    (LayerError, 422),
    (UsageError, 400),
    (HostError, 503),
)
_MAX_PROBLEMS: Final = 5
_log: Final = logging.getLogger(__name__)


def status_of(error: SmidrError) -> int:
    """The HTTP status that says the same."""
    if isinstance(error, BusyError) and error.retry_after_s is not None:
        return 429
    if error.kind.is_infrastructure and not isinstance(error, UsageError):
        return 500 if error.kind == "internal" else 503
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def json_answer(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON document of plain values."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A build's text may hold half a character, which UTF-8 has no bytes for.
    raw = text.encode(errors="replace")
    return Response(raw, status, dict(headers or {}), media_type="application/json")


def error_answer(error: SmidrError) -> Response:
    """What a client gets for an error of ours."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="smidr"'
    elif status in {429, 503}:
        after = error.retry_after_s if isinstance(error, BusyError) else None
        headers["Retry-After"] = str(math.ceil(after or 5))
    body = {
        "kind": str(error.kind),
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
    }
    return json_answer({"error": body}, status, headers)


def answer_for(
    status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """An error that has no exception of ours."""
    kind = "usage" if status < 500 else "internal"
    body = {"kind": kind, "message": message, "where": "", "hint": hint}
    return json_answer({"error": body}, status, headers)


def install(app: FastAPI) -> None:
    """Let every error of the app have this one shape."""

    @app.exception_handler(SmidrError)
    async def of_ours(_request: Request, error: SmidrError) -> Response:
        if status_of(error) == 500:
            _log.error("a request failed: %s", error, exc_info=error)
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def of_form(_request: Request, error: RequestValidationError) -> Response:
        problems = [_problem(item) for item in error.errors()[:_MAX_PROBLEMS]]
        return answer_for(422, "; ".join(problems), "/api/v1/openapi.json says what is taken.")

    @app.exception_handler(HTTPException)
    async def of_framework(_request: Request, error: HTTPException) -> Response:
        return answer_for(error.status_code, str(error.detail).lower(), headers=error.headers)

    @app.exception_handler(Exception)
    async def of_nobody(_request: Request, _error: Exception) -> Response:
        # Starlette raises it again, and the server logs it.
        return answer_for(500, "a fault of smidr's own", "The agent's log has the details.")


def _problem(item: Mapping[str, Any]) -> str:
    # Where and what, never the value itself: it may be a secret in the wrong place.
    where = ".".join(str(part) for part in item["loc"])[:200]
    return f"{where}: {str(item['msg'])[:300]}"
