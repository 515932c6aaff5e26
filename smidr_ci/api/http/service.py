"""What the routes share: the operations, and threads for what blocks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from smidr_ci.api.callers import Caller
from smidr_ci.api.growth import LogTails, ViewTails
from smidr_ci.api.health import Health
from smidr_ci.api.operations import Operations

__all__ = ["CallerOf", "Service", "ServiceOf"]

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """One agent as the routes see it. `metrics` renders Prometheus' text; it may block."""

    operations: Operations
    pool: Executor
    logs: LogTails
    views: ViewTails
    health: Health
    metrics: Callable[[], bytes]
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this agent's process from the one before it, whose notes had numbers of their own."""

    async def call(
        self, function: Callable[Given, Result], *args: Given.args, **more: Given.kwargs
    ) -> Result:
        """Call something that blocks, in a thread of the pool."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, partial(function, *args, **more))


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


ServiceOf = Annotated[Service, Depends(_service)]
CallerOf = Annotated[Caller, Depends(_caller)]
"""Put there by `guard.Guard`."""
