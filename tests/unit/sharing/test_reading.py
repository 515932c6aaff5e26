"""What builds read of the store by a socket, and by the relay in their container."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.bitbake.inside import relay as inside
from smidr_ci.sharing.gate import Gate
from smidr_ci.sharing.reading import SHARE_SOCKET, ShareReader
from smidr_ci.sharing.relaying import connected_unix
from tests.fakes.cache_home import object_name
from tests.fakes.clock import FakeClock
from tests.fakes.object_store import MemoryStore

OBJECT = f"sstate/{object_name(7)}"
QUOTED = "/" + OBJECT.replace(":", "%3A")
RAW = os.urandom(700_000)


class Connection(http.client.HTTPConnection):
    """HTTP to a unix socket at a path of any length."""

    def __init__(self, path: Path) -> None:
        super().__init__("share")
        self._path = path

    def connect(self) -> None:
        self.sock = connected_unix(self._path)


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.objects[OBJECT] = RAW
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reader(store: MemoryStore, clock: FakeClock, tmp_path: Path) -> Iterator[ShareReader]:
    folder = tmp_path / ("long" * 30) / "share"
    found = ShareReader(store, folder, gate=Gate(clock, patience_s=20.0))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def place(reader: ShareReader, tmp_path: Path) -> Path:
    assert reader.problem == ""
    return tmp_path / ("long" * 30) / "share" / SHARE_SOCKET


def ask(place: Path, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    with contextlib.closing(Connection(place)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def test_an_object_is_found_and_given(place: Path) -> None:
    status, body, headers = ask(place, "HEAD", QUOTED)
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(RAW)))
    assert "Last-Modified" not in headers  # wget would make the file look unused for years
    assert ask(place, "GET", QUOTED)[:2] == (200, RAW)
    assert ask(place, "GET", f"/{OBJECT}")[:2] == (200, RAW)


def test_one_connection_serves_many_requests(place: Path) -> None:
    with contextlib.closing(Connection(place)) as connection:
        for path, status in ((QUOTED, 200), ("/sstate/none", 404), (QUOTED, 200)):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == status
            answer.read()
        sock = connection.sock
        assert sock is not None


@pytest.mark.parametrize(
    "path",
    [
        "/", "/sstate/", "/other/x", "/sstate/../other", "/sstate/%2e%2e/other", "/sstate//x",
        "/sstate/./x", "/sstate/x?y=1", "/sstate/x%00", "/downloads/../../etc/passwd", "sstate/x",
        "/sstate/" + "x" * 2000,
    ],
)  # fmt: skip
def test_nothing_but_objects_of_the_caches_is_asked_for(
    place: Path, store: MemoryStore, path: str
) -> None:
    store.objects["other"] = b"of somebody else"
    assert ask(place, "GET", path)[0] == 404
    assert all(line.split()[1].startswith("sstate/") for line in store.asked)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "MKCOL"])
def test_nothing_can_be_changed(place: Path, store: MemoryStore, method: str) -> None:
    assert ask(place, method, QUOTED)[0] == 501
    assert store.asked == []


def test_downloads_are_not_given_when_they_are_not_shared(
    store: MemoryStore, tmp_path: Path
) -> None:
    store.objects["downloads/x.tar.gz"] = b"x"
    reader = ShareReader(store, tmp_path, caches=frozenset({"sstate"}))
    reader.start()
    try:
        assert ask(tmp_path / SHARE_SOCKET, "GET", "/downloads/x.tar.gz")[0] == 404
        assert ask(tmp_path / SHARE_SOCKET, "GET", QUOTED)[0] == 200
    finally:
        reader.stop()


def test_what_is_not_what_the_store_says_is_never_given_whole(
    place: Path, store: MemoryStore
) -> None:
    store.sha256 = "0" * 64
    with contextlib.closing(Connection(place)) as connection:
        connection.request("GET", QUOTED)
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()


def test_a_store_that_is_away_is_asked_once_in_a_while(
    place: Path, reader: ShareReader, store: MemoryStore, clock: FakeClock
) -> None:
    store.fails_after = 0
    assert [ask(place, "HEAD", QUOTED)[0] for _ in range(5)] == [503] * 5
    assert len(store.asked) == 1
    assert "the store is away" in reader.problem
    clock.advance(31)
    assert [ask(place, "HEAD", QUOTED)[0] for _ in range(3)] == [503] * 3
    assert len(store.asked) == 2
    store.fails_after = None
    clock.advance(31)
    assert ask(place, "GET", QUOTED)[:2] == (200, RAW)
    assert reader.problem == ""


def test_a_problem_that_nobody_has_met_for_long_is_forgotten(
    place: Path, reader: ShareReader, store: MemoryStore, clock: FakeClock
) -> None:
    store.fails_after = 0
    ask(place, "HEAD", QUOTED)
    clock.advance(3600)
    assert reader.problem == ""


def test_a_store_that_hangs_holds_nobody_up(clock: FakeClock) -> None:
    gate = Gate(clock, patience_s=0.05)
    answers, late = threading.Event(), threading.Event()

    def hang() -> str:
        answers.wait(60)
        return "late"

    disposed: list[str] = []

    def dispose(answer: str) -> None:
        disposed.append(answer)
        late.set()

    with pytest.raises(Exception, match="no answer within"):
        gate.ask(hang, dispose)
    answers.set()
    assert late.wait(60)
    assert disposed == ["late"]


def test_only_the_owner_may_connect(place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_socket_of_a_dead_agent_is_taken_over(store: MemoryStore, tmp_path: Path) -> None:
    first = ShareReader(store, tmp_path)
    first.start()
    second = ShareReader(store, tmp_path)
    second.start()
    assert ask(tmp_path / SHARE_SOCKET, "HEAD", QUOTED)[0] == 200
    second.stop()
    first.stop()
    assert not (tmp_path / SHARE_SOCKET).exists()


@contextlib.contextmanager
def relayed(target: Path, patience_s: float) -> Iterator[int]:
    """The port of a relay as the driver starts one."""
    folder = os.open(target.parent, os.O_PATH)
    listener = inside.listen(0)
    relay = inside.Relay(f"/proc/self/fd/{folder}/{target.name}", patience_s)
    thread = threading.Thread(target=relay.serve, args=(listener,))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        os.close(folder)


def test_the_relay_in_the_container_leads_to_the_socket(place: Path) -> None:
    with (
        relayed(place, 20.0) as port,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        for _ in range(3):
            connection.request("GET", QUOTED)
            assert connection.getresponse().read() == RAW


def test_the_relay_waits_for_an_agent_that_is_started_again(
    place: Path, reader: ShareReader
) -> None:
    reader.stop()
    with relayed(place, 60.0) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", QUOTED)
        reader.start()
        assert connection.getresponse().read() == RAW
        connection.close()


def test_without_an_agent_the_relay_hangs_up_and_then_does_not_wait(tmp_path: Path) -> None:
    with relayed(tmp_path / "nobody", 0.05) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                assert connection.recv(1) == b""
