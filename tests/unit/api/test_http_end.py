"""The end of the HTTP server: nobody who came in is left without an end."""

from __future__ import annotations

import threading
from pathlib import Path

from smidr_ci.api.sockets import connect_unix
from smidr_ci.home import Home
from tests.fakes.http_agent import HttpAgent

_TIMEOUT_S = 30


def test_who_comes_in_while_the_server_ends_sees_the_end(tmp_path: Path) -> None:
    unanswered = []
    is_over = threading.Event()
    has_begun = threading.Semaphore(0)

    def keep_coming(home: Home) -> None:
        while not is_over.is_set():
            try:
                with connect_unix(home.socket, _TIMEOUT_S) as connection:
                    has_begun.release()
                    connection.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                    connection.recv(10)
            except TimeoutError as error:
                unanswered.append(error)
                return
            except OSError:
                is_over.wait(0.001)

    for life in range(5):
        home = Home(tmp_path / str(life))
        with HttpAgent(home):
            clients = [threading.Thread(target=keep_coming, args=(home,)) for _ in range(4)]
            for client in clients:
                client.start()
            for _ in range(20):
                assert has_begun.acquire(timeout=_TIMEOUT_S)
        is_over.set()
        for client in clients:
            client.join()
        is_over.clear()
    assert not unanswered
