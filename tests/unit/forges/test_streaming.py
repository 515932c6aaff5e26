"""Big bodies go out without a copy, over slow lines too, and are made while they are sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from urllib3.connection import HTTPConnection

from smidr_ci.forges.readahead import one_ahead
from smidr_ci.forges.streaming import ChunkedBody, StreamingConnection

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


class Connection(StreamingConnection, HTTPConnection):
    """As the sessions make them."""


class Receiver:
    """Takes one request with so many bytes in its body, `part` at a time with a rest between."""

    def __init__(self, ends_with: bytes, part: int = 1 << 20, rest_s: float = 0.0) -> None:
        self._ends_with, self._part, self._rest_s = ends_with, part, rest_s
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.taken = bytearray()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        resting = threading.Event()
        connection, _ = self._listener.accept()
        with connection:
            while not self.taken.endswith(self._ends_with):
                part = connection.recv(self._part)
                if not part:
                    return  # the client gave up
                self.taken += part
                resting.wait(self._rest_s)
            connection.sendall(ANSWER)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


def test_blocks_become_chunks_and_an_empty_one_does_not_end_the_body() -> None:
    receiver = Receiver(b"0\r\n\r\n")
    connection = Connection("127.0.0.1", receiver.port)
    try:
        body = ChunkedBody([b"abc", b"", memoryview(b"0123456789abcdef!")])
        connection.request("POST", "/place", body, {"X-Ours": "1"})
        assert connection.getresponse().status == 201
    finally:
        connection.close()
        receiver.close()
    head, _, content = receiver.taken.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head + b"\r\n"
    assert content == b"3\r\nabc\r\n11\r\n0123456789abcdef!\r\n0\r\n\r\n"


def test_a_block_may_take_longer_than_the_time_limit_as_long_as_it_moves() -> None:
    size = 2 << 20
    receiver = Receiver(b"end", part=1 << 15, rest_s=0.045)
    connection = Connection("127.0.0.1", receiver.port, timeout=2)
    try:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        connection.request("PUT", "/place", bytes(size) + b"end")
        connection.sock.settimeout(30)
        assert connection.getresponse().status == 201
    finally:
        connection.close()
        receiver.close()
    assert receiver.taken.partition(b"\r\n\r\n")[2] == bytes(size) + b"end"


def test_the_next_item_is_made_while_the_last_one_is_used() -> None:
    second_began = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_began.set()
        yield 2

    found = one_ahead(items())
    assert next(found) == 1
    assert second_began.wait(30), "nobody asks for the second one yet"
    assert list(found) == [2]


def test_what_fails_ahead_fails_when_its_turn_comes() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no such file")

    found = one_ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="no such file"):
        next(found)


def test_an_end_in_the_middle_waits_for_what_is_made() -> None:
    before = set(threading.enumerate())
    begun, may_go = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        assert may_go.wait(30)
        yield 2

    source = items()
    found = one_ahead(source)
    assert next(found) == 1
    assert begun.wait(30)
    threading.Timer(0.05, may_go.set).start()
    found.close()
    assert next(source, None) is None, "the source is free, and has made the second one"
    assert [
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("ahead")
    ] == []
