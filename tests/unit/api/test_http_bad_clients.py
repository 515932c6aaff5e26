"""Clients that mean harm, or are broken: refused, and the agent is well afterwards."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.http.connection import Patience
from smidr_ci.api.http.guard import Limits
from smidr_ci.api.security import Security
from smidr_ci.api.sockets import connect_unix
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.database import Database
from smidr_ci.clock import SystemClock
from smidr_ci.config.api import Api
from smidr_ci.home import Home
from tests.fakes.http_agent import ADMIN, AnybodyIs, AsUser, HttpAgent, TooOften, until
from tests.unit.api.test_http_routes import ORDER, ask, start

HASTY = Patience(headers_s=0.5, body_s=1.5, pause_s=0.5, stall_s=1.0, flush_s=1.0, keep_alive_s=1)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[HttpAgent]:
    with HttpAgent(Home(tmp_path / "home"), patience=HASTY) as agent:
        yield agent
        assert ask(agent, "GET", "/readyz").json == {"ready": True, "problems": []}


def tcp(
    served: HttpAgent, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)) as connection:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def ends(connection: socket.socket) -> bytes:
    """What comes until the agent closes the connection."""
    connection.settimeout(30)
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def test_over_tcp_nothing_is_told_without_a_good_token(served: HttpAgent) -> None:
    token = served.token(Scope.READ)
    info = served.tokens.list()[0]
    for headers in (
        {},
        bearer("wrong"),
        bearer(token + "x"),
        bearer(""),
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": "Bearer \xff"},
    ):
        status, sent, body = tcp(served, "GET", "/api/v1/builds", headers)
        assert status == 401, headers
        assert sent["WWW-Authenticate"].startswith("Bearer")
        assert json.loads(body)["error"]["kind"] == "usage"
    assert tcp(served, "GET", "/api/v1/builds", bearer(token))[0] == 200
    served.tokens.revoke(info.token_id)
    assert tcp(served, "GET", "/api/v1/builds", bearer(token))[0] == 401


def test_who_guesses_tokens_must_wait(served: HttpAgent) -> None:
    statuses = [tcp(served, "GET", "/api/v1/agent", bearer("guess"))[0] for _ in range(12)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    good = bearer(served.token(Scope.READ))
    assert tcp(served, "GET", "/api/v1/agent", good)[0] == 200


def test_health_needs_no_token_and_metrics_do(served: HttpAgent) -> None:
    assert tcp(served, "GET", "/healthz")[0] == 200
    assert tcp(served, "GET", "/readyz")[0] == 200
    assert tcp(served, "GET", "/metrics")[0] == 401
    assert tcp(served, "GET", "/metrics", bearer(served.token(Scope.READ)))[0] == 200


def test_over_tcp_no_directory_of_the_host_can_be_named(served: HttpAgent) -> None:
    headers = {**bearer(served.token(Scope.ADMIN)), "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", served.port)) as connection:
        body = json.dumps({**ORDER, "directory": "/etc"})
        connection.request("POST", "/api/v1/builds", body, headers)
        assert connection.getresponse().status == 403
    assert served.agent.orders == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_pages_of_other_sites_are_refused(served: HttpAgent, headers: dict[str, str]) -> None:
    good = bearer(served.token(Scope.ADMIN))
    assert tcp(served, "GET", "/api/v1/builds", {**good, **headers})[0] == 403
    assert tcp(served, "GET", "/healthz", headers)[0] == 403


def test_a_page_of_the_agents_own_address_is_not(served: HttpAgent) -> None:
    good = bearer(served.token(Scope.READ))
    own = {"Host": f"localhost:{served.port}", "Origin": f"http://localhost:{served.port}"}
    assert tcp(served, "GET", "/api/v1/builds", {**good, **own})[0] == 200
    assert ask(served, "GET", "/healthz", headers={"Origin": "http://localhost"}).status == 403


def test_another_user_of_the_host_is_refused_on_the_socket(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    database = Database(home.database)
    security = Security(TokenStore(database), Api(), uid=4711)
    with HttpAgent(home, access=AsUser(security, 4712)) as served:
        answer = ask(served, "GET", "/api/v1/builds")
        assert answer.status == 403
        assert "4711" in answer.json["error"]["message"]
        assert "WWW-Authenticate" not in answer.headers
    with HttpAgent(home, access=AsUser(security, 4711)) as served:
        assert ask(served, "GET", "/api/v1/builds").status == 200
    database.close()


def test_a_body_that_is_announced_too_big_is_not_read(served: HttpAgent) -> None:
    with closing(connect_unix(served.home.socket)) as connection:
        connection.sendall(
            b"POST /api/v1/builds HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert ends(connection).startswith(b"HTTP/1.1 413")


def test_a_body_that_grows_too_big_is_cut_off(served: HttpAgent) -> None:
    with closing(connect_unix(served.home.socket, 30)) as connection:
        connection.sendall(
            b"POST /api/v1/purge HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        try:
            for _ in range(5):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert ends(connection).startswith(b"HTTP/1.1 413")


def test_a_stranger_sends_no_order_at_all(served: HttpAgent) -> None:
    with closing(served.connect()) as connection:
        connection.sendall(
            b"POST /api/v1/builds HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n{"
        )
        assert ends(connection).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 1000,
        b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400_or_closed(served: HttpAgent, sent: bytes) -> None:
    with closing(served.connect()) as connection:
        try:
            connection.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            return
        answer = ends(connection)
        assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer


def test_a_request_in_the_tail_of_another_is_a_request_of_its_own(served: HttpAgent) -> None:
    pair = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /api/v1/builds HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    with closing(served.connect()) as connection:
        connection.sendall(pair)
        answers = ends(connection)
    assert answers.count(b"HTTP/1.1 200") == 1
    assert answers.count(b"HTTP/1.1 401") == 1


def test_headers_that_come_byte_by_byte_are_not_waited_for(served: HttpAgent) -> None:
    with closing(served.connect()) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert ends(connection) == b""


def test_the_second_request_of_a_connection_has_a_deadline_too(served: HttpAgent) -> None:
    with closing(served.connect()) as connection:
        connection.settimeout(30)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /heal")
        assert b"HTTP/1.1" not in ends(connection)


def test_a_body_that_stalls_is_not_waited_for(served: HttpAgent) -> None:
    with closing(connect_unix(served.home.socket)) as connection:
        connection.sendall(
            b"POST /api/v1/purge HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        )
        assert ends(connection).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_not_waited_for(served: HttpAgent) -> None:
    with closing(connect_unix(served.home.socket, 30)) as connection:
        connection.sendall(
            b"POST /api/v1/purge HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        )
        clock = SystemClock()
        begun = clock.monotonic()
        stopped = threading.Event()

        def drip() -> None:
            while not stopped.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = ends(connection)
        stopped.set()
        dripping.join()
        assert answer.startswith(b"HTTP/1.1 408")
        assert clock.monotonic() - begun < 20


def test_a_thousand_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with HttpAgent(home, max_waiting=50) as served, ExitStack() as stack:
        good = bearer(served.token(Scope.READ))
        for number in range(1000):
            connection = stack.enter_context(closing(served.connect()))
            if number % 2:
                try:
                    connection.sendall(b"GET /api/v1/builds HTTP/1.1\r\nHost: lo")
                except (BrokenPipeError, ConnectionResetError):
                    continue
            if number % 250 == 249:
                assert tcp(served, "GET", "/api/v1/builds", good)[0] == 200
        assert ask(served, "GET", "/healthz").status == 200
        assert served.server.connections <= 60


def test_a_reader_that_stops_reading_is_given_up(served: HttpAgent) -> None:
    build_id = start(served)
    served.log(build_id, b"x" * 4_000_000)
    with closing(connect_unix(served.home.socket)) as connection:
        connection.sendall(
            f"GET /api/v1/builds/{build_id}/log?follow=true HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        deadline = SystemClock().monotonic() + 30
        while served.agent.watchers_of(build_id) == 0:
            assert SystemClock().monotonic() < deadline
            threading.Event().wait(0.02)
        while served.agent.watchers_of(build_id):
            assert SystemClock().monotonic() < deadline
            threading.Event().wait(0.02)
        assert len(ends(connection)) < 4_000_000


def test_a_slow_reader_holds_up_nobody_else(tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home")) as served:
        build_id = start(served)
        served.log(build_id, b"line\n" * 400_000)
        with closing(connect_unix(served.home.socket)) as slow:
            path = f"/api/v1/builds/{build_id}/log?follow=true"
            slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
            quick = ask(served, "GET", f"/api/v1/builds/{build_id}/log")
            assert len(quick.body) == 2_000_000


def test_one_caller_can_not_take_all_requests(tmp_path: Path) -> None:
    limits = Limits(max_requests=6, max_requests_of_one=2)
    access = AnybodyIs()
    with HttpAgent(Home(tmp_path / "home"), access=access, limits=limits) as served:
        build_id = start(served)
        with ExitStack() as stack:
            for _ in range(2):
                connection = stack.enter_context(closing(connect_unix(served.home.socket, 30)))
                path = f"/api/v1/builds/{build_id}/watch"
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert connection.recv(10).startswith(b"HTTP/1.1 2")
            assert ask(served, "GET", "/api/v1/builds").status == 429
            access.caller = Caller("somebody else", Scope.READ)
            assert ask(served, "GET", "/api/v1/builds").status == 200
            access.caller = ADMIN
        served.agent.finish(build_id)
        until(lambda: ask(served, "GET", "/api/v1/builds").status == 200)


def test_bodies_in_memory_are_bounded_together(tmp_path: Path) -> None:
    limits = Limits(max_bodies_bytes=1000)
    with HttpAgent(Home(tmp_path / "home"), limits=limits) as served:
        answer = ask(served, "POST", "/api/v1/builds", {**ORDER, "config_name": "x" * 2000})
        assert answer.status == 503
        assert ask(served, "POST", "/api/v1/builds", ORDER).status == 201


def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    with HttpAgent(Home(tmp_path / "home"), access=TooOften()) as served:
        answer = ask(served, "GET", "/api/v1/builds")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
