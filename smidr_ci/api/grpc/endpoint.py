"""What is the same for each method: who calls, one request, an answer or a stream, errors.

All methods are served as streams of requests, which look the same on the wire as single ones do. So
a caller is known before its request is read, and a stranger can't make the agent hold 32 MiB.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.grpc.failures import code_of, details_of, trailer_of
from smidr_ci.api.security import Transport
from smidr_ci.api.tls import names_of_auth_context
from smidr_ci.errors import InternalError, SmidrError, TooLargeError, UsageError

__all__ = ["Authenticator", "Context", "Endpoint", "Limits", "blocking", "send"]

_LOG: Final = logging.getLogger(__name__)
_MAX_REQUEST: Final = 64 * 1024
_REQUEST_TIMEOUT_S: Final = 30.0
_Result = TypeVar("_Result")

Context = grpc.aio.ServicerContext[Any, Any]


class Authenticator(Protocol):
    """Who calls; `api.security.Security` is one. Blocking and thread-safe."""

    def authenticate(
        self,
        token: str | None,
        *,
        transport: Transport,
        certificate: Sequence[str] | None = None,
    ) -> Caller:
        """The caller; raises `UnauthenticatedError` or `BusyError`."""


@dataclass(frozen=True)
class Limits:
    """How much of requests is taken, beyond what is small."""

    max_bytes: int = _MAX_REQUEST
    at_once: asyncio.Semaphore | None = None
    """For methods whose requests are big: held from before the request to after the answer."""
    scope: Scope | None = Scope.READ
    """Needed before the request is read; None lets strangers in."""
    timeout_s: float = _REQUEST_TIMEOUT_S
    """For the request to come."""


class Endpoint:
    """Makes handlers of methods `(caller, request) -> response`, or async generators of these.

    A response is a message, or the bytes of one.
    """

    def __init__(self, authenticator: Authenticator, pool: Executor) -> None:
        self._authenticator = authenticator
        self._pool = pool
        self._running: set[asyncio.Task[Any]] = set()

    def handler(
        self,
        method: Callable[..., Awaitable[Message]] | Callable[..., AsyncIterator[Message | bytes]],
        request_type: type[Message],
        limits: Limits = Limits(),
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of one method; `request_type` has the request."""

        async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
            await self.guarded(
                lambda: self._serve(method, request_type, limits, requests, context), context
            )

        return grpc.stream_stream_rpc_method_handler(serve, None, _bytes_of)

    async def guarded(self, serve: Callable[[], Awaitable[None]], context: Context) -> None:
        """Do it; what goes wrong becomes the call's status, and never a traceback."""
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            await serve()
        except SmidrError as error:
            failure = error
        except _GoneError:
            return
        except Exception as error:  # noqa: BLE001 - logged, and told without what is inside
            _LOG.exception("a gRPC call failed")
            failure = InternalError(
                f"a fault of the agent's own ({type(error).__name__})",
                hint="The agent's log has more.",
            )
        else:
            return
        await context.abort(code_of(failure), details_of(failure), trailer_of(failure))

    async def ended(self, timeout_s: float) -> None:
        """Wait for calls that were told to end, but no longer than that."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def caller(self, context: Context) -> Caller:
        """Who calls; raises `UnauthenticatedError` or `BusyError`."""
        token, transport = _token_of(context), _transport_of(context)
        names = names_of_auth_context(context.auth_context()) or None
        return await blocking(
            self._pool,
            lambda: self._authenticator.authenticate(token, transport=transport, certificate=names),
        )

    async def _serve(
        self,
        method: Callable[..., Any],
        request_type: type[Message],
        limits: Limits,
        requests: AsyncIterator[bytes],
        context: Context,
    ) -> None:
        caller = None
        if limits.scope is not None:
            caller = await self.caller(context)
            caller.require(limits.scope)
        async with limits.at_once or nullcontext():
            request = await _one(requests, request_type, limits)
            await _answer(method, caller, request, context)


async def blocking(pool: Executor, call: Callable[[], _Result]) -> _Result:
    """Have a thread do it."""
    return await asyncio.get_running_loop().run_in_executor(pool, call)


async def send(context: Context, response: Message | bytes) -> None:
    """Write a response; a client that has gone ends the call in peace."""
    try:
        await context.write(response)
    except grpc.aio.BaseError as error:
        raise _GoneError from error


class _GoneError(Exception):
    """Nobody is there any more to be told anything."""


def _bytes_of(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


async def _answer(
    method: Callable[..., Any], caller: Caller | None, request: Message, context: Context
) -> None:
    if not inspect.isasyncgenfunction(method):
        await send(context, await method(caller, request))
        return
    async with aclosing(method(caller, request)) as responses:
        async for response in responses:
            await send(context, response)


async def _one(requests: AsyncIterator[bytes], kind: type[Message], limits: Limits) -> Message:
    try:
        async with asyncio.timeout(limits.timeout_s):
            raw = await anext(aiter(requests))
    except StopAsyncIteration:
        raise UsageError("the call has no request") from None
    except TimeoutError:
        raise UsageError(f"the request did not come in {limits.timeout_s:g} s") from None
    if len(raw) > limits.max_bytes:
        raise TooLargeError(f"the request has {len(raw)} bytes; {limits.max_bytes} are taken")
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise UsageError(f"the request is no {kind.DESCRIPTOR.full_name}") from None


def _token_of(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("latin-1")
            scheme, _, token = text.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return None


def _transport_of(context: Context) -> Transport:
    """From `unix:`, `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711` (gRPC naming, "peer")."""
    scheme, _, rest = context.peer().partition(":")
    if scheme == "unix":
        # gRPC can't say who is at the other end, but the socket's mode lets nobody else in.
        return Transport.unix(os.getuid())
    address = unquote(rest).rpartition(":")[0]
    return Transport.tcp(address.strip("[]"))
