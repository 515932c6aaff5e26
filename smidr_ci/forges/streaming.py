"""Big request bodies: in blocks of any size and without a copy.

urllib3 makes a new buffer for each chunk of a body (or reads 16 KiB at a time), and the standard
library's `sendall` gives a whole block no more time than one write: a slow line needs it for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from urllib3.connection import HTTPConnection

__all__ = ["ChunkedBody", "StreamingConnection"]


class ChunkedBody:
    """A body whose size is not known: what is iterated over goes out as chunks (RFC 9112, 7.1)."""

    def __init__(self, blocks: Iterable[bytes | memoryview]) -> None:
        """A block need not be good any more when the next one is asked for."""
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return iter(self._blocks)


class StreamingConnection(HTTPConnection):
    """Before urllib3's classes in the order of a connection's bases."""

    _blocks: Iterable[bytes | memoryview] | None = None

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,  # noqa: ANN401 - what the base class takes
        headers: Any = None,  # noqa: ANN401 - the same
        **options: Any,  # noqa: ANN401 - the same
    ) -> None:
        """Take the blocks out of urllib3's hands, which still sends the headers and the end."""
        if isinstance(body, ChunkedBody):
            self._blocks, body, options["chunked"] = body, iter(()), True
        try:
            super().request(method, url, body, headers, **options)
        finally:
            self._blocks = None

    def endheaders(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as the base class
        """The headers, and then the blocks, if there are any."""
        super().endheaders(*arguments, **options)
        blocks, self._blocks = self._blocks, None
        end = b""
        for block in blocks or ():
            if block:
                self.send(b"%b%x\r\n" % (end, len(block)))
                self.send(block)
                end = b"\r\n"
        if end:
            self.send(end)

    def send(self, data: Any) -> None:  # noqa: ANN401 - what the base class takes
        """All of it; the time limit is for each part that the network takes."""
        if self.sock is None or not isinstance(data, bytes | memoryview):
            super().send(data)
            return
        left = memoryview(data)
        while left:
            left = left[self.sock.send(left) :]
