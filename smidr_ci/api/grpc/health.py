"""The standard health service (grpc.health.v1) and server reflection.

Health answers strangers, as probes have no token; reflection does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.grpc.endpoint import Context, Endpoint, Limits, blocking, send
from smidr_ci.api.grpc.methods import SERVICE
from smidr_ci.errors import BusyError, NotFoundError

__all__ = ["health_handlers", "reflection_handlers"]

_MAX_REQUEST: Final = 1024
_REQUEST_TIMEOUT_S: Final = 5.0
_WATCHERS: Final = 32
_LOOK_S: Final = 1.0
_REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"
_KNOWN: Final = frozenset({"", SERVICE})


def health_handlers(
    endpoint: Endpoint, is_serving: Callable[[], bool], pool: Executor
) -> tuple[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """The service's name and its methods; `is_serving` may block, `pool` asks it."""
    watchers = 0

    async def status_of(service: str) -> health_pb2.HealthCheckResponse:
        if service not in _KNOWN:
            return health_pb2.HealthCheckResponse(status="SERVICE_UNKNOWN")
        is_well = await blocking(pool, is_serving)
        return health_pb2.HealthCheckResponse(status="SERVING" if is_well else "NOT_SERVING")

    async def check(
        _: Caller | None, request: health_pb2.HealthCheckRequest
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in _KNOWN:
            raise NotFoundError(f"there is no service {request.service[:80]!r}")
        return await status_of(request.service)

    async def watch(
        _: Caller | None, request: health_pb2.HealthCheckRequest
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        nonlocal watchers
        if watchers >= _WATCHERS:
            raise BusyError(f"{_WATCHERS} watch the agent's health already")
        watchers += 1
        try:
            seen = None
            while True:
                now = await status_of(request.service)
                if now != seen:
                    seen = now
                    yield now
                await asyncio.sleep(_LOOK_S)
        finally:
            watchers -= 1

    limits = Limits(max_bytes=_MAX_REQUEST, scope=None, timeout_s=_REQUEST_TIMEOUT_S)
    kind = health_pb2.HealthCheckRequest
    return health.SERVICE_NAME, {
        "Check": endpoint.handler(check, kind, limits),
        "Watch": endpoint.handler(watch, kind, limits),
    }


def reflection_handlers(
    endpoint: Endpoint,
) -> tuple[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """The service's name and its method; loaded with its first use, which few agents see."""

    async def info(requests: AsyncIterator[Any], context: Context) -> None:
        async def serve() -> None:
            caller = await endpoint.caller(context)
            caller.require(Scope.READ)
            names = (SERVICE, health.SERVICE_NAME, _REFLECTION)
            # Its type says "coroutine"; it is a generator.
            servicer: Any = _reflection().aio.ReflectionServicer(names)
            async with aclosing(servicer.ServerReflectionInfo(requests, context)) as answers:
                async for answer in answers:
                    await send(context, answer)

        await endpoint.guarded(serve, context)

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        info,
        _messages().ServerReflectionRequest.FromString,
        lambda answer: answer.SerializeToString(),
    )
    return _REFLECTION, {"ServerReflectionInfo": handler}


def _reflection() -> Any:  # noqa: ANN401 - a module
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - 2 MB, see above

    return reflection


def _messages() -> Any:  # noqa: ANN401 - a module
    from grpc_reflection.v1alpha import reflection_pb2  # noqa: PLC0415 - 2 MB, see above

    return reflection_pb2
