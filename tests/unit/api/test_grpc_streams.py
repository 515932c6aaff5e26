"""Streams and downloads over gRPC: many readers, slow ones, and agents that start anew."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc.client import GrpcClient
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.api.grpc.methods import SERVICE
from smidr_ci.artifacts.collect import collect
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.errors import AgentUnreachableError, ConflictError, HostError, NotFoundError
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.grpc_agent import GrpcAgent

ORDER = StartRequest(customer="acme", config_text="name: demo\n", config_name="smidr.yaml")
TIMEOUT_S = 60


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def agent(home: Home) -> Iterator[GrpcAgent]:
    with GrpcAgent(home) as running:
        yield running


class Reader:
    """Reads a stream to its end on a thread; `wait` gives what came, or raises."""

    def __init__(self, stream: Iterator[object]) -> None:
        self.items: list[object] = []
        self._failure: BaseException | None = None
        self._stream = stream
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for item in self._stream:
                self.items.append(item)
        except BaseException as error:  # noqa: BLE001 - raised by `wait`
            self._failure = error

    def wait(self) -> list[object]:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure
        return self.items


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_log_stream_goes_on_after_the_agent_was_started_anew(home: Home) -> None:
    with GrpcAgent(home) as first:
        client = first.client()
        build_id = client.start(ORDER).build_id
        first.write(build_id, b"before\n")
        reader = Reader(client.logs(build_id, follow=True))
        until(lambda: bool(reader.items))
    with GrpcAgent(home) as second:
        second.write(build_id, b"between\n")
        until(lambda: len(reader.items) == 2)
        second.write(build_id, b"after\n")
        second.agent.finish(build_id)
        assert reader.wait() == [(0, b"before\n"), (7, b"between\n"), (15, b"after\n")]
        client.close()


def test_an_agent_that_dies_in_the_middle_costs_no_byte(home: Home) -> None:
    text = os.urandom(3_000_000)
    with GrpcAgent(home) as first:
        client = first.client()
        build_id = client.start(ORDER).build_id
        first.write(build_id, text[:2_000_000])
        stream = client.logs(build_id, follow=True)
        got = [next(stream), next(stream)]
    with GrpcAgent(home) as second:
        second.write(build_id, text[2_000_000:])
        second.agent.finish(build_id)
        got += stream
        assert b"".join(data for _, data in got) == text
        assert [start for start, _ in got] == [
            sum(len(data) for _, data in got[:n]) for n in range(len(got))
        ]
        client.close()


def test_a_tail_that_has_shown_nothing_yet_loses_nothing(home: Home) -> None:
    with GrpcAgent(home) as first:
        client = first.client()
        build_id = client.start(ORDER).build_id
        reader = Reader(client.logs(build_id, tail=1, follow=True))
        until(lambda: first.agent.watchers_of(build_id) == 1)
    with GrpcAgent(home) as second:
        second.write(build_id, b"one\ntwo\nthree\n")
        second.agent.finish(build_id)
        assert reader.wait() == [(0, b"one\ntwo\nthree\n")]
        client.close()


def test_watching_goes_on_after_the_agent_was_started_anew(home: Home) -> None:
    with GrpcAgent(home) as first:
        client = first.client()
        build_id = client.start(ORDER).build_id
        first.agent.show(build_id, notes=("old note",))
        reader = Reader(client.watch(build_id))
        until(lambda: bool(reader.items))
    with GrpcAgent(home) as second:
        until(lambda: second.agent.watchers_of(build_id) == 1)
        second.agent.show(build_id, notes=("new note",))
        second.agent.finish(build_id)
        views = [item for item in reader.wait() if isinstance(item, BuildView)]
        notes = [note.text for view in views for note in view.notes]
        assert notes[0] == "old note"
        assert "old note" not in notes[1:]
        assert views[-1].record.state is BuildState.COMPLETED
        assert len(views) <= 4
        client.close()


def test_patience_ends_when_the_agent_stays_away(home: Home) -> None:
    clock = FakeClock()
    with GrpcAgent(home) as agent:
        client = agent.client(clock=clock, patience_s=30)
        build_id = client.start(ORDER).build_id
        agent.write(build_id, b"text\n")
        stream = client.logs(build_id, follow=True)
        assert next(stream) == (0, b"text\n")
    with pytest.raises(AgentUnreachableError):
        next(stream)
    assert 20 < sum(clock.slept) <= 30
    assert max(clock.slept) == 5
    client.close()


def test_who_leaves_a_stream_leaves_nothing_behind(agent: GrpcAgent) -> None:
    client = agent.client()
    build_id = client.start(ORDER).build_id
    agent.write(build_id, b"text\n")
    logs, views = client.logs(build_id, follow=True), client.watch(build_id)
    next(logs)
    next(views)
    assert agent.agent.watchers_of(build_id) == 2
    logs.close()  # type: ignore[attr-defined] # a generator
    views.close()  # type: ignore[attr-defined] # a generator
    until(lambda: agent.agent.watchers_of(build_id) == 0)
    client.close()


def test_two_hundred_followers_get_every_line(agent: GrpcAgent) -> None:
    followers, lines, bursts = 200, 1000, 20
    client = agent.client()
    build_id = client.start(ORDER).build_id
    client.close()
    followed = threading.Event()

    async def follow(channel: grpc.aio.Channel, seen: list[int]) -> bytes:
        call = channel.unary_stream(
            f"/{SERVICE}/StreamLogs",
            request_serializer=pb.StreamLogsRequest.SerializeToString,
            response_deserializer=pb.StreamLogsResponse.FromString,
        )(pb.StreamLogsRequest(build_id=build_id, follow=True), timeout=TIMEOUT_S)
        parts: list[bytes] = []
        length = 0
        async for response in call:
            assert response.offset == length
            if not response.data:
                seen.append(1)
                if len(seen) == followers:
                    followed.set()
            parts.append(response.data)
            length += len(response.data)
        return b"".join(parts)

    async def work() -> set[bytes]:
        async with grpc.aio.insecure_channel(agent.socket) as channel:
            seen: list[int] = []
            return set(await asyncio.gather(*(follow(channel, seen) for _ in range(followers))))

    def write() -> None:
        # 20,000 lines a second for a second
        assert followed.wait(TIMEOUT_S)
        for burst in range(bursts):
            numbers = range(burst * lines, (burst + 1) * lines)
            agent.write(build_id, b"".join(b"%079d\n" % number for number in numbers))
            threading.Event().wait(1 / bursts)
        agent.agent.finish(build_id)

    writer = threading.Thread(target=write)
    writer.start()
    got = asyncio.run(work())
    writer.join()
    assert got == {b"".join(b"%079d\n" % number for number in range(bursts * lines))}


def test_a_reader_that_stops_reading_costs_others_nothing(agent: GrpcAgent) -> None:
    client, slow_client = agent.client(), agent.client()
    build_id = client.start(ORDER).build_id
    text = os.urandom(1 << 20) * 64
    agent.write(build_id, text)
    slow = slow_client.logs(build_id, follow=True)
    first = next(slow)
    before = _memory_bytes()
    agent.agent.finish(build_id)
    assert b"".join(data for _, data in client.logs(build_id, follow=True)) == text
    rest = [data for _, data in slow]
    assert b"".join([first[1], *rest]) == text
    assert _memory_bytes() - before < 2.5 * len(text)  # both readers are in this process too
    client.close()
    slow_client.close()


def leave(agent: GrpcAgent, name: str, content: bytes) -> BuildRecord:
    """A build that is over and has left one artifact."""
    client = agent.client()
    record = client.start(ORDER)
    client.close()
    deploy = agent.home.root / "deploy" / record.build_id
    deploy.mkdir(parents=True)
    (deploy / name).write_bytes(content)
    folder = agent.home.artifacts / record.customer / record.build_id
    collect(deploy, ["**"], folder, created=datetime.now(UTC))
    return agent.agent.finish(record.build_id)


def test_a_download_is_checked_and_gets_its_name_at_the_end(
    agent: GrpcAgent, tmp_path: Path
) -> None:
    content = os.urandom(700_000)
    record = leave(agent, "image.wic", content)
    client = agent.client()
    assert [item.path for item in client.artifacts(record.build_id)] == ["image.wic"]
    steps: list[int] = []
    client.download(record.build_id, "image.wic", tmp_path / "out.wic", steps.append)
    assert (tmp_path / "out.wic").read_bytes() == content
    assert not (tmp_path / "out.wic.part").exists()
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 700_000)
    client.close()


def test_a_download_goes_on_where_it_stopped(agent: GrpcAgent, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    record = leave(agent, "image.wic", content)
    (tmp_path / "out.part").write_bytes(content[:650_000])
    client = agent.client()
    steps: list[int] = []
    client.download(record.build_id, "image.wic", tmp_path / "out", steps.append)
    assert (tmp_path / "out").read_bytes() == content
    assert steps == [650_000, 700_000]
    client.close()


@pytest.mark.parametrize("left", [b"of another file", b"x" * 800_000])
def test_what_is_left_of_another_file_is_thrown_away(
    agent: GrpcAgent, tmp_path: Path, left: bytes
) -> None:
    content = os.urandom(700_000)
    record = leave(agent, "image.wic", content)
    (tmp_path / "out.part").write_bytes(left)
    client = agent.client()
    client.download(record.build_id, "image.wic", tmp_path / "out", lambda _: None)
    assert (tmp_path / "out").read_bytes() == content
    client.close()


def test_an_artifact_that_was_damaged_is_not_kept(agent: GrpcAgent, tmp_path: Path) -> None:
    record = leave(agent, "image.wic", b"as it was")
    (agent.home.artifacts / "acme" / record.build_id / "image.wic").write_bytes(b"otherwise")
    client = agent.client()
    with pytest.raises(HostError, match="SHA-256 is another"):
        client.download(record.build_id, "image.wic", tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()
    client.close()


def test_a_download_does_not_follow_a_link_that_lies_in_its_way(
    agent: GrpcAgent, tmp_path: Path
) -> None:
    record = leave(agent, "image.wic", b"content")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out.part").symlink_to(tmp_path / "precious")
    client = agent.client()
    with pytest.raises(HostError, match="can't keep the artifact"):
        client.download(record.build_id, "image.wic", tmp_path / "out", lambda _: None)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    client.close()


def test_two_downloads_to_one_place_do_not_mix(agent: GrpcAgent, tmp_path: Path) -> None:
    record = leave(agent, "image.wic", os.urandom(700_000))
    client = agent.client()

    def again(_: int) -> None:
        with pytest.raises(ConflictError, match="another download"):
            client.download(record.build_id, "image.wic", tmp_path / "out", lambda _: None)

    client.download(record.build_id, "image.wic", tmp_path / "out", again)
    client.close()


@pytest.mark.parametrize("path", ["../image.wic", "/etc/passwd", "manifest.json", "", "image.wic/"])
def test_only_listed_artifacts_can_be_had(agent: GrpcAgent, tmp_path: Path, path: str) -> None:
    record = leave(agent, "image.wic", b"content")
    client = agent.client()
    with pytest.raises(NotFoundError, match="no artifact"):
        client.download(record.build_id, path, tmp_path / "out", lambda _: None)
    client.close()
    with grpc.insecure_channel(agent.socket) as channel:
        call: Any = channel.unary_stream(
            f"/{SERVICE}/DownloadArtifact",
            request_serializer=pb.DownloadArtifactRequest.SerializeToString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(call(pb.DownloadArtifactRequest(build_id=record.build_id, path=path), timeout=30))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_download_goes_on_after_the_agent_was_started_anew(home: Home, tmp_path: Path) -> None:
    content = os.urandom(8_000_000)
    running = [GrpcAgent(home).__enter__()]
    try:
        record = leave(running[0], "image.wic", content)
        client = running[0].client()
        steps: list[int] = []

        def restart_in_the_middle(size: int) -> None:
            steps.append(size)
            if len(running) == 1 and size > 1_000_000:
                running[0].__exit__()
                running.append(GrpcAgent(home).__enter__())

        client.download(record.build_id, "image.wic", tmp_path / "out", restart_in_the_middle)
        assert (tmp_path / "out").read_bytes() == content
        assert len(running) == 2
        assert steps == sorted(steps)
        client.close()
    finally:
        running[-1].__exit__()


def test_progress_is_gone_when_a_build_is_over(agent: GrpcAgent) -> None:
    client = agent.client()
    build_id = client.start(ORDER).build_id
    agent.agent.show(build_id, progress=Progress(tasks_total=3))
    views = client.watch(build_id)
    first = next(views)
    assert first.progress == Progress(tasks_total=3)
    agent.agent.finish(build_id)
    assert list(views)[-1].progress is None
    client.close()


def _memory_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def test_a_client_reads_from_several_threads(agent: GrpcAgent) -> None:
    client = agent.client()
    build_id = client.start(ORDER).build_id
    agent.write(build_id, b"text\n")
    readers = [Reader(client.logs(build_id, follow=True)) for _ in range(8)]
    agent.agent.finish(build_id)
    assert [reader.wait() for reader in readers] == [[(0, b"text\n")]] * 8
    client.close()


def test_the_socket_of_a_dead_agent_is_no_address(home: Home) -> None:
    with GrpcAgent(home):
        path = f"unix:{home.grpc_socket}"
    assert not home.grpc_socket.exists()
    client = GrpcClient(path)
    with pytest.raises(AgentUnreachableError):
        client.status()
    client.close()
