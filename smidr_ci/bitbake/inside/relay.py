"""Carry connections from a loopback port of the container to a unix socket that smidr mounts.

BitBake's fetchers speak TCP only, and a build may have no network. A process of its own: the driver
starts programs, which a process with threads had better not do.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

__all__ = ["Relay", "main"]

_PATIENCE_S = 20.0
_PAUSE_S = 0.2
_AWAY_S = 30.0
_CHUNK = 1 << 17
_BACKLOG = 128


class Relay:
    """Bytes both ways, whatever they say."""

    def __init__(self, target: str, patience_s: float = _PATIENCE_S) -> None:
        """`patience_s`: an agent that is started again is waited for, by one connection's time."""
        self._target = target
        self._patience_s = patience_s
        self._away_until = 0.0

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                if listener.fileno() < 0:
                    return
                time.sleep(_PAUSE_S)  # too many open files, say
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            server = self._connect()
            if server is None:
                return
            with server:
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()

    def _connect(self) -> socket.socket | None:
        """A connection to the target; None at once for a while after it was waited for in vain."""
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() >= self._away_until:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self._target)
            except OSError:
                server.close()
                if time.monotonic() >= deadline:
                    self._away_until = time.monotonic() + _AWAY_S
                    return None
                time.sleep(_PAUSE_S)
            else:
                return server
        return None


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, and end the target's direction with it."""
    with contextlib.suppress(OSError):
        chunk = source.recv(_CHUNK)
        while chunk:
            target.sendall(chunk)
            chunk = source.recv(_CHUNK)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        source.shutdown(socket.SHUT_RD)


def listen(port: int) -> socket.socket:
    """A listener on the container's loopback."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def main(target: str, port: int) -> int:
    """Relay until killed; 1 when the port can't be had."""
    try:
        listener = listen(port)
    except OSError as error:
        sys.stderr.write(f"smidr: no way to the shared cache: {error}\n")
        return 1
    with listener:
        Relay(target).serve(listener)
    return 0
