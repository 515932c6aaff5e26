"""Addresses and sockets: what is open to whom, and what refuses to start."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.api.addresses import (
    Endpoint,
    Listening,
    UnixAddress,
    endpoint_of,
    parse_address,
    plan_listening,
    resolve_endpoints,
)
from smidr_ci.api.listen import bind_tcp, bind_unix, peer_uid, take_agent_lock
from smidr_ci.api.sockets import short_path
from smidr_ci.config.api import Api
from smidr_ci.errors import ConflictError, HostError, UsageError
from smidr_ci.home import Home
from tests.fakes.certificates import Authority

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:50051", ("::1", 50051)),
        (":50051", ("", 50051)),
        ("build.example.com:0", ("build.example.com", 0)),
        ("unix:/run/agent.sock", UnixAddress(Path("/run/agent.sock"))),
        ("unix:///run/agent.sock", UnixAddress(Path("/run/agent.sock"))),
        ("unix:agent.sock", UnixAddress(Path("agent.sock"))),
        ("/run/agent.sock", UnixAddress(Path("/run/agent.sock"))),
    ],
)
def test_addresses_are_understood(text: str, parsed: object) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", "50051", "localhost", "::1:50051", "[::1]", "a:b", "a:65536", "a:-1", "a:1:2"),
        *("unix:", "http://a:1", "a b:1", "a:1\n", "a:\uff11"),
    ],
)
def test_what_is_no_address_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address") as caught:
        parse_address(text)
    assert "[::1]:50051" in caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        parsed = parse_address(text)
    except UsageError:
        return
    assert isinstance(parsed, UnixAddress) or 0 <= parsed[1] <= 65535


def resolving(*hosts: str) -> Any:
    def resolve(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (host, port)) for host in hosts]

    return resolve


def test_a_name_stands_for_all_its_addresses() -> None:
    found = resolve_endpoints("build:5", resolving("127.0.0.1", "::1", "127.0.0.1"))
    assert found == (Endpoint("127.0.0.1", 5), Endpoint("::1", 5))
    assert resolve_endpoints("build:0", resolving("127.0.0.1", "::1")) == (
        Endpoint("127.0.0.1", 0),
    )


def test_no_host_is_every_address() -> None:
    (everywhere,) = resolve_endpoints(":5")
    assert everywhere.host in {"::", "0.0.0.0"}
    assert not everywhere.is_loopback
    assert "127.0.0.1:5" in everywhere.local_addresses


def test_an_unknown_host_is_told_so() -> None:
    def fail(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(UsageError, match="the host 'nowhere' is not known"):
        resolve_endpoints("nowhere:5", fail)
    with pytest.raises(UsageError):
        resolve_endpoints("x" * 64 + ":5")  # longer than a label may be


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_may_be_plain_without_any_token(host: str) -> None:
    where = f"[{host}]:5" if ":" in host else f"{host}:5"
    plan = plan_listening(Api(address=where), NOW, has_tokens=False)
    assert plan == Listening(grpc=(Endpoint(host, 5),))


OPEN = ["0.0.0.0:5", "[::]:5", ":5", "192.0.2.1:5", "[2001:db8::1]:5"]


@pytest.mark.parametrize("where", OPEN)
@pytest.mark.parametrize("key", ["address", "http_address"])
def test_other_addresses_refuse_to_start_without_tls(where: str, key: str) -> None:
    with pytest.raises(UsageError, match="needs TLS") as caught:
        plan_listening(Api.model_validate({key: where}), NOW, has_tokens=True)
    assert "api.tls_certificate_file" in caught.value.hint
    assert "127.0.0.1" in caught.value.hint


@pytest.mark.parametrize("where", OPEN)
def test_insecure_says_yes_to_plain_text_but_not_to_no_tokens(where: str) -> None:
    plan_listening(Api(), NOW, has_tokens=True, is_insecure=True, address=where)
    with pytest.raises(UsageError, match="there is no token yet") as caught:
        plan_listening(Api(), NOW, has_tokens=False, is_insecure=True, address=where)
    assert "smidr token create" in caught.value.hint


def test_a_name_that_also_leads_elsewhere_is_open() -> None:
    endpoints = resolve_endpoints("localhost:5", resolving("127.0.0.1", "192.0.2.1"))
    assert not all(endpoint.is_loopback for endpoint in endpoints)


def test_with_tls_a_token_or_a_client_ca_is_enough(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("server")
    tls = Api(address=":5", tls_certificate_file=certificate, tls_key_file=key)
    assert plan_listening(tls, NOW, has_tokens=True).tls is not None
    with pytest.raises(UsageError, match="there is no token yet"):
        plan_listening(tls, NOW, has_tokens=False)
    mutual = tls.model_copy(update={"client_ca_file": authority.path})
    assert plan_listening(mutual, NOW, has_tokens=False).tls is not None


def test_the_status_tells_of_a_certificate_that_ends_soon(tmp_path: Path) -> None:
    certificate, key, _ = Authority(tmp_path).issue("server", days=10)
    tls = Api(address="127.0.0.1:5", tls_certificate_file=certificate, tls_key_file=key)
    (warning,) = plan_listening(tls, NOW, has_tokens=True).warnings(NOW)
    assert str(certificate) in warning
    assert Listening().warnings(NOW) == ()


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:5", ("127.0.0.1:5",)),
        ("[::1]:5", ("[::1]:5",)),
        ("[::]:5", ("127.0.0.1:5", "[::1]:5")),
        ("0.0.0.0:5", ("127.0.0.1:5",)),
        ("192.0.2.1:5", ()),
    ],
)
def test_programs_of_the_host_know_where_to_go(text: str, local: tuple[str, ...]) -> None:
    assert endpoint_of(text).local_addresses == local


@pytest.mark.parametrize("text", ["localhost:5", ":5", "unix:/x", "x"])
def test_an_endpoint_is_in_numbers(text: str) -> None:
    with pytest.raises(UsageError):
        endpoint_of(text)


def test_the_command_line_wins_over_the_settings() -> None:
    settings = Api(address="0.0.0.0:5", http_address="127.0.0.1:6")
    plan = plan_listening(settings, NOW, has_tokens=False, address="127.0.0.1:7")
    assert plan == Listening(grpc=(Endpoint("127.0.0.1", 7),), http=(Endpoint("127.0.0.1", 6),))


def test_without_addresses_nothing_listens() -> None:
    assert plan_listening(Api(), NOW, has_tokens=True) == Listening()


def test_a_port_that_is_taken_is_told_so() -> None:
    with closing(bind_tcp(Endpoint("127.0.0.1", 0))) as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match="can't listen") as caught:
            bind_tcp(Endpoint("127.0.0.1", port))
        assert caught.value.where == f"127.0.0.1:{port}"
        assert "Another program listens there" in caught.value.hint


def test_an_address_of_another_host_is_told_so() -> None:
    with pytest.raises(UsageError, match="can't listen") as caught:
        bind_tcp(Endpoint("192.0.2.1", 0))
    assert "no such address" in caught.value.hint


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "home"
    root.mkdir(mode=0o700)
    return Home(root)


@pytest.fixture
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("wide_umask")
def test_the_socket_is_its_owners_alone_whatever_the_umask(home: Home) -> None:
    with closing(bind_unix(home.socket)):
        assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600


def test_the_kernel_says_who_is_at_the_other_end(home: Home) -> None:
    with closing(bind_unix(home.socket)) as server, closing(socket.socket(socket.AF_UNIX)) as us:
        with short_path(home.socket) as name:
            us.connect(name)
        with closing(server.accept()[0]) as accepted:
            assert peer_uid(accepted) == os.getuid()


def test_a_long_path_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir(mode=0o700)
    path = folder / "agent.sock"
    with closing(bind_unix(path)) as server, closing(socket.socket(socket.AF_UNIX)) as client:
        with short_path(path) as name:
            assert len(name) < 108
            client.connect(name)
        server.accept()[0].close()
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_dead_agents_socket_makes_way(home: Home) -> None:
    bind_unix(home.socket).close()
    assert home.socket.exists()
    with closing(bind_unix(home.socket)):
        assert stat.S_ISSOCK(home.socket.stat().st_mode)


def test_a_living_agents_socket_does_not(home: Home) -> None:
    with closing(bind_unix(home.socket)) as server:
        with pytest.raises(ConflictError, match="somebody listens there already"):
            bind_unix(home.socket)
        assert home.socket.exists()
        server.accept()[0].close()


def test_not_even_when_it_is_too_busy_to_answer(home: Home) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as server, short_path(home.socket) as name:
        server.bind(name)
        server.listen(0)
        waiting = []
        try:
            while True:  # fill its backlog
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                client.connect(name)
        except BlockingIOError:
            pass
        with pytest.raises(ConflictError):
            bind_unix(home.socket)
        for client in waiting:
            client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_stays(home: Home, kind: str) -> None:
    if kind == "file":
        home.socket.write_text("x")
    elif kind == "folder":
        home.socket.mkdir()
    else:
        home.socket.symlink_to("elsewhere")
    with pytest.raises(UsageError, match="something else lies"):
        bind_unix(home.socket)
    assert os.path.lexists(home.socket)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_write_to_is_refused(home: Home, mode: int) -> None:
    home.root.chmod(mode)
    with pytest.raises(HostError, match="other users can write") as caught:
        bind_unix(home.socket)
    assert caught.value.hint == f"chmod 700 {home.root}"


HOLD = """
import sys
from pathlib import Path
from smidr_ci.api.listen import bind_unix, take_agent_lock
from smidr_ci.home import Home
home = Home(Path(sys.argv[1]))
lock = take_agent_lock(home)
server = bind_unix(home.socket)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_killed_agent_leaves_nothing_that_blocks_the_next(home: Home) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(ConflictError, match=f"an agent runs already, pid {child.pid}"):
            take_agent_lock(home)
        child.kill()
    with take_agent_lock(home), closing(bind_unix(home.socket)):
        assert (home.locks / "agent.lock").read_text() == f"{os.getpid()}\n"


def test_of_many_agents_that_start_at_once_one_runs(home: Home) -> None:
    start = threading.Barrier(5)
    won, lost = [], []

    def run() -> None:
        start.wait(timeout=30)
        try:
            won.append(take_agent_lock(home))
        except ConflictError as error:
            lost.append(error)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (len(won), len(lost)) == (1, 4)
    won[0].release()
