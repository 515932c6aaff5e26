"""A proxy as companies have it: CONNECT, and plain requests with a whole address."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ForwardProxy", "serve_proxy"]


class ForwardProxy:
    """All connections end at one port of loopback, whatever host they ask for."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.asked: list[str] = []
        """The first line of each connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._begin(self._serve, connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for opened in self._open:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _begin(self, work: object, *arguments: socket.socket) -> threading.Thread:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments)
        with self._lock:
            self._threads.append(thread)
            self._open += arguments
        thread.start()
        return thread

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = client.recv(1 << 16)
            if not part:
                client.close()
                return
            head += part
        line = head.split(b"\r\n", 1)[0].decode()
        self.asked.append(line)
        with client, socket.create_connection(self._target) as server:
            if line.startswith("CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)
            back = self._begin(_relay, server, client)
            _relay(client, server)
            back.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 18):
            target.sendall(part)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def serve_proxy(port: int) -> Iterator[ForwardProxy]:
    """A running proxy before this port."""
    proxy = ForwardProxy(port)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
