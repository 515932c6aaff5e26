"""The standard-library client against the real HTTP server."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smidr_ci.api.callers import Scope
from smidr_ci.api.client import AgentClient, StartRequest
from smidr_ci.api.local_client import LocalClient, find_agent
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import (
    AgentUnreachableError,
    BusyError,
    ConfigError,
    ConflictError,
    FailureKind,
    ForbiddenError,
    HostError,
    InternalError,
    NotFoundError,
    UnauthenticatedError,
    UsageError,
)
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.http_agent import HttpAgent, until

ORDER = StartRequest(customer="acme", config_text="name: ü\n", config_name="router.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def served(home: Home) -> Iterator[HttpAgent]:
    with HttpAgent(home) as agent:
        yield agent


@pytest.fixture
def client(served: HttpAgent) -> LocalClient:
    return LocalClient(served.home.socket)


def test_it_is_the_client_that_commands_know(client: LocalClient) -> None:
    port: AgentClient = client
    assert port.status().version == "1.2.3"


def test_an_order_arrives_as_it_was_given(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    order = replace(
        ORDER,
        targets=("a", "b"),
        clean=True,
        clean_image=True,
        fetch_only=True,
        locked=True,
        keep_workspace=True,
        variables={"X": "1"},
        environment={"Y": "2"},
        directory=tmp_path,
    )
    record = client.start(order)
    assert record.state is BuildState.QUEUED
    given = served.agent.orders[0]
    for name in (
        *("customer", "config_text", "config_name", "targets", "clean", "clean_image"),
        *("fetch_only", "locked", "keep_workspace", "variables", "environment", "directory"),
    ):
        assert getattr(given, name) == getattr(order, name), name


def test_a_record_comes_as_the_agent_has_it(served: HttpAgent, client: LocalClient) -> None:
    build_id = client.start(ORDER).build_id
    served.agent.finish(build_id, findings=({"recipe": "zlib"},), layer_commits={"a": "b" * 40})
    stored = served.agent.store.get(build_id)
    assert client.get(build_id[:9]) == replace(stored, order={})
    (listed,) = client.list(limit=5, state=BuildState.COMPLETED, customer="acme")
    assert (listed.build_id, listed.is_summary) == (build_id, True)
    assert client.list(before=build_id) == []


def test_builds_are_cancelled_deleted_and_purged(served: HttpAgent, client: LocalClient) -> None:
    build_id = client.start(ORDER).build_id
    assert client.cancel(build_id, CancelLevel.KILL).state is BuildState.CANCELLED
    assert served.agent.cancelled[0][2] is CancelLevel.KILL
    client.delete(build_id)
    assert client.purge(datetime(2020, 1, 1, tzinfo=UTC)) == ()
    assert client.purge() == (build_id,)


def test_the_agent_is_drained_and_stopped(served: HttpAgent, client: LocalClient) -> None:
    client.drain()
    client.stop(cancel_builds=True)
    assert served.agent.is_draining
    assert served.agent.stopped_with is True


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("m", where="smidr.yaml:1:2", hint="h"), ConfigError),
        (UsageError("m", where="w", hint="h"), UsageError),
        (ConflictError("m", where="w", hint="h"), ConflictError),
        (BusyError("m", where="w", hint="h"), BusyError),
        (HostError("m", where="w", hint="h", kind=FailureKind.DISK), HostError),
        (InternalError("m", where="w", hint="h"), InternalError),
    ],
)
def test_an_error_comes_as_it_was_raised(
    served: HttpAgent, client: LocalClient, error: UsageError, kind: type[UsageError]
) -> None:
    served.agent.failure = error
    with pytest.raises(kind) as caught:
        client.start(ORDER)
    assert type(caught.value) is kind
    found = caught.value
    assert (found.message, found.where, found.hint) == (error.message, error.where, error.hint)
    assert found.kind is error.kind


def test_an_unknown_build_is_not_found(client: LocalClient) -> None:
    for build_id in ("acme-00000000", "../agent", "", "a b?c#d"):
        with pytest.raises(NotFoundError):
            client.get(build_id)
        with pytest.raises(NotFoundError):
            list(client.logs(build_id, follow=True))
        with pytest.raises(NotFoundError):
            list(client.watch(build_id))


def test_a_log_is_read_whole_from_an_offset_and_by_tail(
    served: HttpAgent, client: LocalClient
) -> None:
    build_id = client.start(ORDER).build_id
    assert list(client.logs(build_id)) == []
    served.log(build_id, b"one\ntwo\nthree\n")
    assert list(client.logs(build_id)) == [(0, b"one\ntwo\nthree\n")]
    assert list(client.logs(build_id, offset=4)) == [(4, b"two\nthree\n")]
    assert list(client.logs(build_id, tail=1)) == [(8, b"three\n")]


def test_a_followed_log_is_complete(served: HttpAgent, client: LocalClient) -> None:
    build_id = client.start(ORDER).build_id
    lines = [f"line {number}\n".encode() for number in range(20_000)]

    def write() -> None:
        for start in range(0, len(lines), 500):
            served.log(build_id, b"".join(lines[start : start + 500]))
        served.agent.finish(build_id)

    writer = threading.Thread(target=write)
    writer.start()
    received = b""
    for offset, chunk in client.logs(build_id, follow=True):
        assert offset == len(received)
        received += chunk
    writer.join()
    assert received == b"".join(lines)


def test_a_followed_log_goes_on_with_the_next_agent(home: Home) -> None:
    client = LocalClient(home.socket)
    with HttpAgent(home) as first:
        build_id = client.start(ORDER).build_id
        first.log(build_id, b"before\n")
        chunks = client.logs(build_id[:10], follow=True)
        assert next(chunks) == (0, b"before\n")
    with HttpAgent(home) as second:
        second.log(build_id, b"after\n")
        assert next(chunks) == (7, b"after\n")
        second.agent.finish(build_id)
        assert list(chunks) == []


def test_a_log_that_begins_anew_comes_again(served: HttpAgent, client: LocalClient) -> None:
    build_id = client.start(ORDER).build_id
    served.log(build_id, b"first attempt\n")
    chunks = client.logs(build_id, follow=True)
    assert next(chunks) == (0, b"first attempt\n")
    served.agent.log_of(build_id).write_bytes(b"second\n")
    assert next(chunks) == (0, b"second\n")
    served.agent.finish(build_id)
    assert list(chunks) == []


def test_watching_goes_on_with_the_next_agent_and_repeats_nothing(home: Home) -> None:
    client = LocalClient(home.socket)
    with HttpAgent(home) as first:
        build_id = client.start(ORDER).build_id
        first.agent.show(build_id, progress=Progress(recipes=1), notes=("one",))
        views = client.watch(build_id)
        assert [note.text for note in next(views).notes] == ["one"]
        first.agent.show(build_id, progress=Progress(recipes=2), notes=("two",))
        assert [note.text for note in next(views).notes] == ["two"]
    with HttpAgent(home) as second:
        seen: list[BuildView] = []
        watcher = threading.Thread(target=lambda: seen.extend(views))
        watcher.start()
        until(lambda: second.agent.watchers_of(build_id) == 1)
        second.agent.show(build_id, progress=Progress(recipes=3), notes=("three", "four"))
        until(lambda: bool(seen and seen[-1].notes))
        second.agent.finish(build_id)
        watcher.join(timeout=60)
    assert [note.text for view in seen for note in view.notes] == ["three", "four"]
    assert seen[-1].record.state is BuildState.COMPLETED
    assert [view.record.state.is_final for view in seen].count(True) == 1


def test_an_agent_that_stays_away_is_given_up(home: Home) -> None:
    clock = FakeClock()
    client = LocalClient(home.socket, clock=clock, reconnect_s=60)
    with HttpAgent(home) as served:
        build_id = client.start(ORDER).build_id
        served.log(build_id, b"x")
        chunks = client.logs(build_id, follow=True)
        next(chunks)
    with pytest.raises(AgentUnreachableError):
        next(chunks)
    assert 60 <= sum(clock.slept) < 70
    assert max(clock.slept) <= 3
    assert len(clock.slept) < 40


def test_an_agent_that_was_never_there_is_not_waited_for(home: Home) -> None:
    clock = FakeClock()
    client = LocalClient(home.socket, clock=clock)
    for call in (client.status, lambda: list(client.logs("a")), lambda: list(client.watch("a"))):
        with pytest.raises(AgentUnreachableError) as caught:
            call()
        assert str(home.socket) in caught.value.where
    assert clock.slept == []


def finished(served: HttpAgent, client: LocalClient, content: bytes) -> BuildRecord:
    record = served.agent.store.get(client.start(ORDER).build_id)
    served.leave_artifacts(record, {"images/core image ü.wic": content})
    return served.agent.finish(record.build_id)


def test_an_artifact_is_downloaded_and_checked(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    content = os.urandom(3_000_000)
    record = finished(served, client, content)
    (artifact,) = client.artifacts(record.build_id)
    target, seen = tmp_path / "new" / "image.wic", list[int]()
    client.download(record.build_id, artifact.path, target, seen.append)
    assert target.read_bytes() == content
    assert seen == sorted(seen)
    assert seen[-1] == len(content)
    assert [path.name for path in target.parent.iterdir()] == ["image.wic"]


def test_a_download_goes_on_where_it_stopped(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    content = os.urandom(1_000_000)
    record = finished(served, client, content)
    (artifact,) = client.artifacts(record.build_id)
    target, seen = tmp_path / "image.wic", list[int]()
    part = tmp_path / f".smidr-{artifact.sha256[:32]}.part"
    part.write_bytes(content[:600_000])
    client.download(record.build_id, artifact.path, target, seen.append)
    assert seen[0] == 600_000
    assert target.read_bytes() == content
    assert not part.exists()


def test_a_download_of_other_bytes_is_refused_and_then_begins_anew(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    content = os.urandom(10_000)
    record = finished(served, client, content)
    (artifact,) = client.artifacts(record.build_id)
    target = tmp_path / "image.wic"
    part = tmp_path / f".smidr-{artifact.sha256[:32]}.part"
    part.write_bytes(b"something else")
    with pytest.raises(HostError, match="SHA-256"):
        client.download(record.build_id, artifact.path, target, lambda _: None)
    assert not target.exists()
    client.download(record.build_id, artifact.path, target, lambda _: None)
    assert target.read_bytes() == content


def test_an_artifact_that_changed_on_the_agents_disk_is_not_kept(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    record = finished(served, client, b"a" * 1000)
    (artifact,) = client.artifacts(record.build_id)
    (served.home.artifacts / "acme" / record.build_id / artifact.path).write_bytes(b"b" * 1000)
    with pytest.raises(HostError, match="SHA-256"):
        client.download(record.build_id, artifact.path, tmp_path / "x", lambda _: None)
    assert list(tmp_path.glob("x*")) == []


def test_a_download_follows_no_symlink_that_somebody_left(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    record = finished(served, client, b"abc")
    (artifact,) = client.artifacts(record.build_id)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".smidr-{artifact.sha256[:32]}.part").symlink_to(victim)
    (tmp_path / "image").symlink_to(victim)
    with pytest.raises(HostError):
        client.download(record.build_id, artifact.path, tmp_path / "image", lambda _: None)
    assert victim.read_text() == "precious"


def test_an_empty_artifact_is_downloaded(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    record = finished(served, client, b"")
    (artifact,) = client.artifacts(record.build_id)
    client.download(record.build_id, artifact.path, tmp_path / "x", lambda _: None)
    assert (tmp_path / "x").read_bytes() == b""


def test_a_download_that_breaks_off_is_taken_up_again(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    digest = hashlib.sha256(content).hexdigest()
    with _HalfHearted(content, digest) as port:
        client = LocalClient(f"http://127.0.0.1:{port}", clock=FakeClock())
        client.download("acme-00000001", "image", tmp_path / "image", lambda _: None)
    assert (tmp_path / "image").read_bytes() == content


class _HalfHearted:
    """An agent that closes each connection after 100,000 bytes of the file."""

    def __init__(self, content: bytes, digest: str) -> None:
        self._content, self._digest = content, digest
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=30)
        self._listener.close()

    def _serve(self) -> None:
        listing = (
            '{"build_id": "acme-00000001", "artifacts": [{"path": "image", '
            f'"size_bytes": {len(self._content)}, "sha256": "{self._digest}"}}]}}'
        ).encode()
        self._answer(f"200 OK\r\nContent-Length: {len(listing)}", listing)
        for start in (0, 100_000, 200_000):
            rest = self._content[start:]
            head = f"{206 if start else 200} X\r\nContent-Length: {len(rest)}"
            self._answer(head, rest[:100_000])

    def _answer(self, head: str, body: bytes) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            connection.sendall(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)


def test_an_artifact_that_is_not_listed_is_not_found(
    served: HttpAgent, client: LocalClient, tmp_path: Path
) -> None:
    record = finished(served, client, b"abc")
    with pytest.raises(NotFoundError):
        client.download(record.build_id, "../image", tmp_path / "x", lambda _: None)


def test_over_tcp_the_client_needs_a_token(served: HttpAgent) -> None:
    with pytest.raises(UnauthenticatedError):
        LocalClient(served.url).status()
    client = LocalClient(served.url, served.token(Scope.READ))
    assert client.status().pid
    with pytest.raises(ForbiddenError):
        client.start(ORDER)


def test_a_big_order_with_a_wrong_token_is_told_why(served: HttpAgent) -> None:
    order = replace(ORDER, bundle=b"x" * 5_000_000)
    with pytest.raises((UnauthenticatedError, AgentUnreachableError)):
        LocalClient(served.url, "wrong").start(order)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:80", "ftp://x", "http://", "http://x/path", "http://[", "http://x:y"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        LocalClient(address)


def test_an_answer_of_something_else_is_told_apart() -> None:
    for answer, kind in (
        (b"SSH-2.0-OpenSSH_9.6\r\n", AgentUnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlive", InternalError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", InternalError),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops", InternalError),
        (b"", AgentUnreachableError),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(listener: socket.socket = listener, answer: bytes = answer) -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            with pytest.raises(kind):
                LocalClient(f"http://127.0.0.1:{listener.getsockname()[1]}").status()
            thread.join()


def test_the_agent_of_a_home_is_found(served: HttpAgent) -> None:
    found = find_agent(served.home)
    assert found is not None
    assert found.status().version == "1.2.3"


def test_no_agent_is_found_where_none_is(home: Home) -> None:
    assert find_agent(home) is None
    home.root.mkdir()
    os.mknod(home.socket, stat.S_IFSOCK | 0o600)
    assert home.socket.exists()
    assert find_agent(home) is None
    home.socket.unlink()
    home.socket.write_text("no socket")
    assert find_agent(home) is None


def test_a_home_with_a_long_path_works(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 30) / ("path" * 30))
    with HttpAgent(home):
        found = find_agent(home)
        assert found is not None
        assert found.list() == []


def test_the_client_loads_nothing_heavy() -> None:
    code = "import sys, smidr_ci.api.local_client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {"grpc", "fastapi", "sqlalchemy", "pydantic", "requests", "docker", "asyncio", "yaml"}
    assert heavy.isdisjoint(loaded)
