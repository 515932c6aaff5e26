"""Carries connections from one socket of this host to another, whatever they say."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["Relay", "bound_tcp", "bound_unix", "connected_tcp", "connected_unix"]

_CHUNK: Final = 1 << 16
_CONNECTIONS: Final = 256
_BACKLOG: Final = 128
_CONNECT_S: Final = 5.0
_PAUSE_S: Final = 0.5


class Relay:
    """Takes connections until it is stopped, and makes one more for each by `connect`.

    `connect` raises `OSError` when there is nobody; then the connection is closed.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._connect = connect
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more, and break off what goes on."""
        self._is_ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the wait for a connection
        self._thread.join()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while not self._is_ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._is_ended.wait(_PAUSE_S)  # too many open files, say
                continue
            with self._lock:
                has_room = len(self._open) < 2 * _CONNECTIONS
            if not has_room:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), name="relay", daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), self._connect() as server:
            with self._lock:
                self._open |= {client, server}
            try:
                if not self._is_ended.is_set():
                    _join(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}


def _join(client: socket.socket, server: socket.socket) -> None:
    for connection in (client, server):
        if connection.family != socket.AF_UNIX:  # a host that vanished must not stay for ever
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(server, client), name="relay", daemon=True)
    back.start()
    _pump(client, server)
    back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            target.sendall(chunk)
    for connection, direction in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            connection.shutdown(direction)


def bound_tcp(host: str, port: int) -> socket.socket:
    """A listener; raises `OSError`."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bound_unix(folder: Path, name: str, owner: tuple[int, int] | None) -> socket.socket:
    """A listener in a folder, in the place of whoever died there; raises `OSError`.

    `owner` is who may connect, when root binds.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    handle = -1
    try:
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=handle)
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the file the mode of the socket
        sock.bind(f"/proc/self/fd/{handle}/{name}")  # of any length
        if owner is not None and os.geteuid() == 0:
            os.chown(name, *owner, dir_fd=handle, follow_symlinks=False)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        if handle >= 0:
            os.close(handle)
    return sock


def connected_tcp(host: str, port: int, timeout_s: float = _CONNECT_S) -> socket.socket:
    """A connection that waits for ever once it is there; raises `OSError`."""
    sock = socket.create_connection((host, port), timeout_s)
    sock.settimeout(None)
    return sock


def connected_unix(path: Path, timeout_s: float = _CONNECT_S) -> socket.socket:
    """The same to a unix socket at a path of any length."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(f"/proc/self/fd/{folder}/{path.name}")
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock
