"""A server that takes a form of any size as fast as Python can, and answers with what it counted.

    python -m benchmarks.receiver

It prints its port, and ends with its standard input. Nothing is kept or looked at but the end of
the body: the sender is what is measured.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading

__all__ = ["main"]

_BUFFER_BYTES = 1 << 20
_CHUNKS_END = b"\r\n0\r\n\r\n"


def main() -> None:
    """Serve until standard input ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        sys.stdin.read()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with connection, contextlib.suppress(ConnectionError):
        while _take(connection, buffer):
            pass


def _take(connection: socket.socket, buffer: memoryview) -> bool:
    """One request; whether another may come."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(1 << 16)
        if not part:
            return False
        head += part
    head, _, rest = head.partition(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if headers.get(b"expect", b"").lower() == b"100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(headers.get(b"content-length", b"-1"))
    size = _drain(connection, buffer, rest, length)
    body = json.dumps({"bytes": size}).encode()
    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return True


def _drain(connection: socket.socket, buffer: memoryview, rest: bytes, length: int) -> int:
    size, tail = len(rest), rest[-len(_CHUNKS_END) :]
    while size < length if length >= 0 else tail != _CHUNKS_END:
        count = connection.recv_into(buffer)
        if not count:
            raise ConnectionError
        size += count
        tail = (tail + bytes(buffer[max(0, count - len(_CHUNKS_END)) : count]))[-len(_CHUNKS_END) :]
    return size


if __name__ == "__main__":
    main()
