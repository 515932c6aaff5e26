"""A job's trace on disk: what the server has or shall get, byte for byte.

Only what a checkpoint covers is sent. After a kill the file is cut back to the last checkpoint,
and whoever wrote goes on from the marks in it: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from smidr_ci.clock import Clock
from smidr_ci.errors import HostError
from smidr_ci.files import as_host_error, write_atomic
from smidr_ci.forges.gitlab.masking import Masker
from smidr_ci.forges.gitlab.timestamps import Timestamper

__all__ = ["DEFAULT_LIMIT", "OUTPUT", "RUNNER", "Trace"]

DEFAULT_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of output in a trace; GitLab takes 100 MB."""
RUNNER: Final = 0
"""The runner's own lines."""
OUTPUT: Final = 1
"""What builds and scripts print."""
_TAIL: Final = 256 * 1024
_RUNNER_LIMIT: Final = 8 * 1024 * 1024
_BLOCK: Final = 1024 * 1024


class _Stream:
    """One writer's filters: secrets out, then lines."""

    def __init__(self, masker: Masker, stamper: Timestamper) -> None:
        self.masker = masker
        self.stamper = stamper

    def feed(self, data: bytes) -> bytes:
        return self.stamper.feed(self.masker.feed(data))

    def end(self) -> bytes:
        return self.stamper.feed(self.masker.end()) + self.stamper.end()


class Trace:
    """Thread-safe. Raises `HostError` when the disk refuses."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        secrets: Iterable[str] = (),
        prefixes: Iterable[str] = (),
        limit_bytes: int = DEFAULT_LIMIT,
        has_timestamps: bool = True,
    ) -> None:
        self.path = directory / "trace"
        self._state_path = directory / "trace.json"
        self._lock = threading.RLock()
        secrets, prefixes = tuple(secrets), tuple(prefixes)
        self._streams = {
            number: _Stream(
                Masker(secrets, prefixes), Timestamper(clock, number, is_stamping=has_timestamps)
            )
            for number in (RUNNER, OUTPUT)
        }
        self._tail_bytes = min(_TAIL, limit_bytes // 4)
        self._budget = {RUNNER: _RUNNER_LIMIT, OUTPUT: limit_bytes - self._tail_bytes}
        self._limit = limit_bytes
        self._tail = bytearray()
        self._left_out = 0
        self._marks: dict[str, int] = {}
        self._size = self._crc = 0
        self._covered = (0, 0)
        self._is_changed = False
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._restore()
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Close the file; a later `Trace` of the directory goes on from the last checkpoint."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    @property
    def size(self) -> int:
        """Bytes that may be sent: those of the last checkpoint."""
        return self._covered[0]

    @property
    def crc32(self) -> int:
        """Of these bytes (IEEE, as zlib's)."""
        return self._covered[1]

    @property
    def left_out_bytes(self) -> int:
        """How much output was over the limit so far."""
        return self._left_out

    def mark(self, name: str) -> int:
        """How far a source was written, as given to `write`; 0 at first."""
        return self._marks.get(name, 0)

    def set_mark(self, name: str, value: int) -> None:
        """Remember a number; stored with the next checkpoint that has news of the trace."""
        with self._lock:
            self._marks[name] = value

    def write(self, stream: int, data: bytes, **marks: int) -> None:
        """Append through the stream's filters; `marks` say how far its source is written now."""
        with self._lock:
            self._limited(stream, self._streams[stream].feed(data))
            self._marks.update(marks)
            self._is_changed = True

    def write_line(self, data: bytes, *, is_needed: bool = False) -> None:
        """A whole line of the runner's own; `is_needed` lets it pass any limit."""
        with self._lock:
            self._is_changed = True
            stream = self._streams[RUNNER]
            shown = stream.feed(data) + stream.stamper.feed(stream.masker.end())
            if is_needed:
                self._append(shown)
            else:
                self._limited(RUNNER, shown)

    def end_output(self) -> None:
        """Nothing more comes of this output: show what waits, and the end of what was too much."""
        with self._lock:
            self._is_changed = True
            self._limited(OUTPUT, self._streams[OUTPUT].end())
            if not self._tail:
                return
            kept = bytes(self._tail)
            begin = kept.find(b"\n") + 1
            kept = (
                kept[begin:] if 0 < begin < len(kept) else kept.decode("utf-8", "ignore").encode()
            )
            self._tail.clear()
            missing = self._left_out - len(kept)
            self._note(f"[... {missing} bytes are left out here; this is the end ...]")
            self._append(kept if kept.endswith(b"\n") else kept + b"\n")

    def read(self, offset: int, max_bytes: int) -> bytes:
        """At most so many bytes that may be sent."""
        return os.pread(self._file, max(0, min(max_bytes, self.size - offset)), offset)

    def checkpoint(self) -> None:
        """Make all that was written so far safe, and ready to be sent."""
        with self._lock:
            if self._file < 0 or not self._is_changed:
                return
            state = {
                "size": self._size,
                "crc": self._crc,
                "marks": self._marks,
                "budget": [self._budget[RUNNER], self._budget[OUTPUT]],
                "left_out": self._left_out,
                "tail": base64.b64encode(self._tail).decode(),
                "streams": [
                    {"masker": stream.masker.dump(), "stamper": stream.stamper.dump()}
                    for stream in self._streams.values()
                ],
            }
            try:
                os.fdatasync(self._file)
                write_atomic(self._state_path, json.dumps(state), mode=0o600)
            except OSError as error:
                raise _disk(error, self.path) from error
            self._covered = (self._size, self._crc)
            self._is_changed = False

    def skip_to(self, offset: int) -> None:
        """The server has more than this file, which was damaged: count on from there."""
        with self._lock:
            if offset <= self._size:
                return
            try:
                os.ftruncate(self._file, offset)
            except OSError as error:
                raise _disk(error, self.path) from error
            self._size, self._crc = offset, self._crc_of(offset)
            self._is_changed = True
            self.checkpoint()

    def _limited(self, stream: int, data: bytes) -> None:
        budget = self._budget[stream]
        if len(data) <= budget:
            self._budget[stream] -= len(data)
            self._append(data)
            return
        if budget:
            # At a line's end, else where a character ends.
            head = data[: data.rfind(b"\n", 0, budget) + 1]
            head = head or data[:budget].decode("utf-8", "ignore").encode()
            data = data[len(head) :]
            self._append(head if head.endswith(b"\n") else head + b"\n")
            self._budget[stream] = 0
            self._note(
                f"The log exceeds the limit of {self._limit} bytes: the middle is left out, the "
                "end will be shown."
                if stream == OUTPUT
                else "More of the runner's own lines are left out."
            )
        if stream == OUTPUT:
            self._left_out += len(data)
            self._tail += data[-self._tail_bytes :] if self._tail_bytes else b""
            del self._tail[: -self._tail_bytes or None]

    def _note(self, text: str) -> None:
        # Past the masker, which may be in the middle of something.
        stamper = self._streams[RUNNER].stamper
        self._append(stamper.feed(f"\x1b[0;33m{text}\x1b[0;m\n".encode()))

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        position = self._size
        try:
            while view:
                written = os.pwrite(self._file, view, position)
                view, position = view[written:], position + written
        except OSError as error:
            raise _disk(error, self.path) from error
        self._size, self._crc = position, zlib.crc32(data, self._crc)

    def _restore(self) -> None:
        try:
            state: Mapping[str, Any] = json.loads(self._state_path.read_bytes())
        except FileNotFoundError:
            state = {}
        there = os.fstat(self._file).st_size
        size = state.get("size", 0)
        os.ftruncate(self._file, min(size, there))
        self._size = min(size, there)
        self._crc = self._crc_of(self._size)
        if state:
            self._marks = dict(state["marks"])
            self._budget[RUNNER], self._budget[OUTPUT] = state["budget"]
            self._left_out = state["left_out"]
            self._tail += base64.b64decode(state["tail"])
            for stream, kept in zip(self._streams.values(), state["streams"], strict=True):
                stream.masker.load(kept["masker"])
                stream.stamper.load(kept["stamper"])
        if size > there:
            self.skip_to(size)  # a disk that lost what it had promised
        self._covered = (self._size, self._crc)

    def _crc_of(self, size: int) -> int:
        crc = position = 0
        while block := os.pread(self._file, min(_BLOCK, size - position), position):
            crc = zlib.crc32(block, crc)
            position += len(block)
        return crc


def _disk(error: OSError, path: Path) -> HostError:
    return as_host_error(error, "can't write the job's trace", path)
