"""A container's main process on this process's terminal, or on its pipes when it has none.

Engine API, POST /containers/{id}/attach: the connection becomes raw in both directions. With a TTY
the bytes are the terminal's; without one, output comes in frames: one byte for the stream (1
stdout, 2 stderr), three zero bytes, four bytes of length, big-endian, then the data.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final

from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError

__all__ = ["Session", "Streams", "attach"]

_HEADER: Final = struct.Struct(">BxxxL")
_STDERR: Final = 2
_CHUNK: Final = 64 * 1024
_DETACH_KEYS: Final = "ctrl-],ctrl-],ctrl-]"


@dataclass(frozen=True)
class Streams:
    """File descriptors that stand for the user."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2

    @property
    def is_terminal(self) -> bool:
        """Whether a person sits there: both input and output are terminals."""
        return os.isatty(self.stdin) and os.isatty(self.stdout)


@contextlib.contextmanager
def attach(engine: Engine, container_id: str, streams: Streams) -> Iterator[Session]:
    """A session on a container that was created (with `Tty` as `streams` say) but not started."""
    # The engine holds back the first of its detach keys; the default, ctrl-p, is a shell's history.
    params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "detachKeys": _DETACH_KEYS}
    with engine.calling("attach to the container"):
        raw = engine.api.attach_socket(container_id, params=params)
    connection: socket.socket = getattr(raw, "_sock", raw)
    connection.settimeout(None)
    try:
        yield Session(engine, container_id, connection, streams)
    finally:
        raw.close()
        connection.close()


class Session:
    """Bytes on their way between the user and one container."""

    def __init__(
        self, engine: Engine, container_id: str, connection: socket.socket, streams: Streams
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self._connection = connection
        self._streams = streams

    def carry(self) -> None:
        """Carry bytes until the container closes its side; the container has been started."""
        stop_reader, stop_writer = os.pipe()
        feeder = threading.Thread(target=self._feed, args=(stop_reader,), daemon=True)
        try:
            if self._streams.is_terminal:
                with _raw_terminal(self._streams.stdin), self._following_size():
                    feeder.start()
                    self._drain_terminal()
            else:
                feeder.start()
                self._drain_frames()
        finally:
            os.close(stop_writer)
            if feeder.ident is not None:
                feeder.join()
            os.close(stop_reader)

    def _feed(self, stop: int) -> None:
        # A thread of its own: a container that does not read must not keep us from reading it.
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([self._streams.stdin, stop], [], [])
                if stop in ready:
                    return
                chunk = os.read(self._streams.stdin, _CHUNK)
                if not chunk:
                    self._connection.shutdown(socket.SHUT_WR)
                    return
                self._send(chunk, stop)

    def _send(self, chunk: bytes, stop: int) -> None:
        left = memoryview(chunk)
        while left:
            ready, writable, _ = select.select([stop], [self._connection], [])
            if ready:
                return
            if writable:
                left = left[self._connection.send(left, socket.MSG_DONTWAIT) :]

    def _drain_terminal(self) -> None:
        while chunk := self._receive(_CHUNK):
            _write_all(self._streams.stdout, chunk)

    def _drain_frames(self) -> None:
        while header := self._receive_exactly(_HEADER.size):
            stream, length = _HEADER.unpack(header)
            target = self._streams.stderr if stream == _STDERR else self._streams.stdout
            while length:
                chunk = self._receive(min(length, _CHUNK))
                if not chunk:
                    return
                _write_all(target, chunk)
                length -= len(chunk)

    def _receive_exactly(self, size: int) -> bytes:
        raw = b""
        while len(raw) < size:
            chunk = self._receive(size - len(raw))
            if not chunk:
                return b""
            raw += chunk
        return raw

    def _receive(self, size: int) -> bytes:
        try:
            return self._connection.recv(size)
        except ConnectionError:
            return b""

    @contextlib.contextmanager
    def _following_size(self) -> Iterator[None]:
        self._resize()
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_resize(_number: int, _frame: FrameType | None) -> None:
            threading.Thread(target=self._resize, daemon=True).start()

        before = signal.signal(signal.SIGWINCH, on_resize)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)

    def _resize(self) -> None:
        size = shutil.get_terminal_size()
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(self._streams.stdout)
        # A container that has just ended has no terminal to resize.
        with contextlib.suppress(EngineError), self._engine.calling("resize the terminal"):
            self._engine.api.resize(self._container_id, size.lines, size.columns)


def _write_all(fd: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(fd, left) :]


@contextlib.contextmanager
def _raw_terminal(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
