"""Connections that are carried from one socket to another, as to a hash server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from smidr_ci.sharing.relaying import Relay, bound_tcp, bound_unix, connected_tcp, connected_unix


@contextlib.contextmanager
def shouting() -> Iterator[tuple[str, int]]:
    """A server that gives back in capitals what it is told, until the end of it."""
    listener = bound_tcp("127.0.0.1", 0)
    threads: list[threading.Thread] = []

    def shout(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while chunk := client.recv(1000):
                client.sendall(chunk.upper())

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=shout, args=(client,)))
                threads[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for one in threads:
            one.join()


def talk(connection: socket.socket, text: bytes) -> bytes:
    with connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := connection.recv(1000):
            found += chunk
        return found


@pytest.fixture
def ways(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A socket that leads to a server, and a port that leads to that socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with shouting() as (host, port):
        out = Relay(bound_unix(folder, "socket", None), partial(connected_tcp, host, port))
        out.start()
        door = bound_tcp("127.0.0.1", 0)
        place = door.getsockname()[1]
        back = Relay(door, partial(connected_unix, folder / "socket"))
        back.start()
        yield folder / "socket", place
        back.stop()
        out.stop()


def test_both_ways_lead_to_the_server(ways: tuple[Path, int]) -> None:
    place, port = ways
    assert talk(connected_unix(place), b"hello" * 500) == b"HELLO" * 500
    assert talk(connected_tcp("127.0.0.1", port), b"hello") == b"HELLO"


def test_many_at_once_do_not_mix(ways: tuple[Path, int]) -> None:
    _, port = ways
    open_ones = [connected_tcp("127.0.0.1", port) for _ in range(20)]
    found = [talk(one, f"name {number}".encode()) for number, one in enumerate(open_ones)]
    assert found == [f"NAME {number}".encode() for number in range(20)]


def test_nobody_behind_it_ends_the_connection(tmp_path: Path) -> None:
    relay = Relay(bound_tcp("127.0.0.1", 0), partial(connected_unix, tmp_path / "none"))
    port = relay._listener.getsockname()[1]
    relay.start()
    with connected_tcp("127.0.0.1", port) as connection:
        assert connection.recv(1) == b""
    relay.stop()


def test_a_stop_breaks_off_what_goes_on(tmp_path: Path) -> None:
    with shouting() as (host, port):
        relay = Relay(bound_unix(tmp_path, "socket", None), partial(connected_tcp, host, port))
        relay.start()
        with connected_unix(tmp_path / "socket") as connection:
            connection.sendall(b"a")
            assert connection.recv(1) == b"A"
            relay.stop()
            assert connection.recv(1) == b""
