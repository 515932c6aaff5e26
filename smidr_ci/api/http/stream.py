"""An answer whose length nobody knows yet, that notices when nobody reads it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from smidr_ci.api.http.connection import SmidrProtocol

__all__ = ["BrokenStreamError", "Stream"]


class BrokenStreamError(Exception):
    """The stream can't go on as it was begun; whoever reads it shall ask again."""


class Stream(Response):
    """Sends the chunks as they come; a client that is gone, or reads nothing for long, ends it.

    When `chunks` raises `BrokenStreamError`, or the connection's patience is over, it is broken
    off, so that the client can tell it from an end. `on_close` is called in any case.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(None, status, dict(headers or {}), media_type)
        if "content-length" in self.headers and "content-length" not in (headers or {}):
            del self.headers["content-length"]
        self._chunks = chunks
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, or as much as is wanted."""
        connection: SmidrProtocol = scope["state"]["connection"]
        stall_s = connection.patience.stall_s
        sending = asyncio.create_task(self._send_all(send, stall_s))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and isinstance(sending.exception(), BrokenStreamError | TimeoutError):
                connection.abort()
                await leaving
            elif sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
            if self._on_close is not None:
                self._on_close()

    async def _send_all(self, send: Send, stall_s: float) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(stall_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
