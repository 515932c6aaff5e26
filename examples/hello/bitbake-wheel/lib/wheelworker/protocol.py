"""Frames on the pipes between the run queue, the worker and its tasks.

Run queue to worker: `<name>`, 4 bytes of length (big-endian), payload, `</name>`.
Worker to run queue: `<event>` pickle `</event>` and `<exitcode>` pickle `</exitcode>`.
(bb.runqueue: RunQueue.send_pickled_data, runQueuePipe.read)
Task to worker: 4 bytes of length, then one of the frames that the run queue gets.
"""

from __future__ import annotations

import pickle
from typing import Any

__all__ = ["CommandBuffer", "FrameBuffer", "ProtocolError", "event_frame", "exit_frame", "packed"]

LENGTH_BYTES = 4
LONGEST_NAME = 32


class ProtocolError(Exception):
    """The other side does not speak this protocol; nothing after it can be trusted."""


def event_frame(event: object) -> bytes:
    """Return the frame that hands an event or a log record to the run queue."""
    return b"<event>" + pickle.dumps(event) + b"</event>"


def exit_frame(task_id: str, code: int) -> bytes:
    """Return the frame that says how a task ended; 128 + n stands for signal n."""
    return b"<exitcode>" + pickle.dumps((task_id, code)) + b"</exitcode>"


def packed(frame: bytes) -> bytes:
    """Return the frame with its length in front, so that its end can't be mistaken."""
    return len(frame).to_bytes(LENGTH_BYTES, "big") + frame


class CommandBuffer:
    """Collects what the run queue sends until commands are whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Add what was read."""
        self._data += chunk

    def next(self) -> tuple[str, Any] | None:
        """Return the next command and its object; None until more has come."""
        if not self._data:
            return None
        close = self._data.find(b">", 0, LONGEST_NAME)
        if not self._data.startswith(b"<") or (close < 0 and len(self._data) >= LONGEST_NAME):
            raise ProtocolError(f"no command begins with {bytes(self._data[:LONGEST_NAME])!r}")
        start = close + 1 + LENGTH_BYTES
        if close < 0 or len(self._data) < start:
            return None
        name = bytes(self._data[1:close])
        end = start + int.from_bytes(self._data[close + 1 : start], "big")
        stop = end + len(name) + 3
        if len(self._data) < stop:
            return None
        if self._data[end:stop] != b"</" + name + b">":
            raise ProtocolError(f"the command {name!r} has no end")
        # The pickles come from the process that started this one.
        value = pickle.loads(self._data[start:end])  # noqa: S301
        del self._data[:stop]
        return name.decode("ascii"), value


class FrameBuffer:
    """Collects what a task sends until frames are whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Add what was read; return the frames that are whole, without their lengths."""
        self._data += chunk
        whole = bytearray()
        while len(self._data) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._data[:LENGTH_BYTES], "big")
            if len(self._data) < end:
                break
            whole += self._data[LENGTH_BYTES:end]
            del self._data[:end]
        return bytes(whole)
