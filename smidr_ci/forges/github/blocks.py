"""Uploads one file of any size to a signed URL, in blocks that are repeated one by one.

Azure: "Put Block" and "Put Block List", as `@actions/artifact` uses them.
"""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote
from xml.sax.saxutils import escape

from smidr_ci.cancel import CancelToken
from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.transport import Transport, shown_url

__all__ = ["BLOCK_BYTES", "BlockUpload", "Source", "Uploaded"]

BLOCK_BYTES: Final = 8 * 1024 * 1024
_MOST_BLOCKS: Final = 50_000
_AT_ONCE: Final = 2
"""In memory besides one that is read: few enough for 150 MB."""
_ATTEMPTS: Final = 6
_FIRST_WAIT_S: Final = 1.0
_API_VERSION: Final = "2021-08-06"


@dataclass(frozen=True)
class Uploaded:
    """What is at the URL now."""

    size_bytes: int
    digest: str
    """`sha256:` and hex digits, of exactly the bytes that went out."""


class Source(Protocol):
    """What is uploaded: a file opened for reading bytes."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as there is something; 0 at the end."""


class BlockUpload:
    """One upload; memory stays flat whatever the file's size."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        content_type: str,
        cancel: CancelToken,
        *,
        pause: Pause | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`progress` hears how many bytes were read so far."""
        self._transport = transport
        self._url = url
        self._content_type = content_type
        self._cancel = cancel
        self._pause = pause or cancel.wait
        self._progress = progress or (lambda _bytes: None)
        self._failed = threading.Event()

    def run(self, stream: Source, expected_bytes: int = 0) -> Uploaded:
        """Upload all of it; raises `ForgeError` and `CancelledError`.

        Files of more than 390 GiB get bigger blocks, as Azure takes 50,000.
        """
        block_bytes = max(BLOCK_BYTES, -(-expected_bytes // _MOST_BLOCKS))
        prefix = uuid.uuid4().hex
        digest, size = hashlib.sha256(), 0
        ids: list[str] = []
        running: deque[Future[memoryview]] = deque()
        free = [memoryview(bytearray(block_bytes))]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="blocks") as pool:
            try:
                while block := _fill(stream, free.pop()):
                    self._cancel.raise_if_cancelled()
                    digest.update(block)
                    size += len(block)
                    # Equal lengths, as Azure demands.
                    ids.append(base64.b64encode(f"{prefix}{len(ids):012d}".encode()).decode())
                    running.append(pool.submit(self._put_block, ids[-1], block))
                    self._progress(size)
                    # Buffers are used again: malloc would keep more of freed ones than is in use.
                    is_full = len(running) >= _AT_ONCE
                    free.append(
                        running.popleft().result()
                        if is_full
                        else memoryview(bytearray(block_bytes))
                    )
                while running:
                    running.popleft().result()
            except BaseException:
                self._failed.set()
                raise
        self._put_list(ids)
        return Uploaded(size, f"sha256:{digest.hexdigest()}")

    def _put_block(self, block_id: str, block: memoryview) -> memoryview:
        """The whole buffer that the block lies in, when it is free again."""
        url = f"{self._url}&comp=block&blockid={quote(block_id, safe='')}"
        self._put(url, {"Content-Type": "application/octet-stream"}, block)
        return memoryview(block.obj)

    def _put_list(self, ids: list[str]) -> None:
        items = "".join(f"<Latest>{escape(item)}</Latest>" for item in ids)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'
        headers = {
            "Content-Type": "application/xml",
            "x-ms-blob-content-type": self._content_type,
        }
        self._put(f"{self._url}&comp=blocklist", headers, body.encode())

    def _put(self, url: str, headers: dict[str, str], body: bytes | memoryview) -> None:
        wait = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            self._cancel.raise_if_cancelled()
            is_last = attempt == _ATTEMPTS or self._failed.is_set()
            try:
                reply = self._once(url, headers, body)
                if reply.is_success:
                    return
                if is_last or (reply.status < 500 and reply.status not in {408, 429}):
                    raise ForgeError(
                        f"can't upload: the store answers {reply.status}",
                        where=shown_url(url),
                        status=reply.status,
                    )
            except ForgeUnreachableError as error:
                if is_last or error.is_misconfigured:
                    raise
            self._pause(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads clients
            wait *= 2
        raise AssertionError("unreachable")

    def _once(self, url: str, headers: dict[str, str], body: bytes | memoryview) -> Reply:
        sent = {"x-ms-version": _API_VERSION, **headers}
        return self._transport.exchange("PUT", url, sent, body)


def _fill(stream: Source, buffer: memoryview) -> memoryview:
    """The part of the buffer that could be filled; empty at the end of the stream."""
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled:])
        if not count:
            break
        filled += count
    return buffer[:filled]
