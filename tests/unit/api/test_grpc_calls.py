"""Every call of the gRPC client, over a real unix socket, to a server with a fake agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc.client import GrpcClient
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.api.grpc.methods import SERVICE
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.service import BuildView, Note
from smidr_ci.cancel import CancelLevel
from smidr_ci.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    FailureKind,
    HostError,
    InternalError,
    NotFoundError,
    UsageError,
)
from smidr_ci.home import Home
from tests.fakes.grpc_agent import GrpcAgent

ORDER = StartRequest(
    customer="acme", config_text="name: demo\n", config_name="smidr.yaml", targets=("image",)
)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[GrpcAgent]:
    with GrpcAgent(Home(tmp_path / "home")) as running:
        yield running


@pytest.fixture
def client(agent: GrpcAgent) -> Iterator[GrpcClient]:
    made = agent.client()
    yield made
    made.close()


def test_start_queues_the_order_and_gives_its_record(agent: GrpcAgent, client: GrpcClient) -> None:
    order = replace(ORDER, clean=True, variables={"A": "1"}, environment={"B": "2"})
    record = client.start(order)
    assert record == client.get(record.build_id)
    assert (record.state, record.config_text) == (BuildState.QUEUED, "name: demo\n")
    (queued,) = agent.agent.orders
    assert (queued.targets, queued.clean, queued.is_confined) == (("image",), True, True)
    assert (dict(queued.variables), dict(queued.environment)) == ({"A": "1"}, {"B": "2"})
    assert queued.requested_by == record.requested_by


def test_an_order_can_not_name_a_directory_of_the_agent(client: GrpcClient, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't name a directory"):
        client.start(replace(ORDER, directory=tmp_path))


def test_a_record_keeps_its_order_to_itself(client: GrpcClient) -> None:
    record = client.start(replace(ORDER, variables={"SECRET": "hidden"}))
    assert client.get(record.build_id).order == {}


def test_a_build_is_found_by_a_unique_beginning(client: GrpcClient) -> None:
    record = client.start(ORDER)
    assert client.get(record.build_id[:8]).build_id == record.build_id


def test_an_unknown_build_is_not_found(client: GrpcClient) -> None:
    for call in (client.get, client.cancel, client.artifacts, client.delete):
        with pytest.raises(NotFoundError, match="there is no build 'acme-00000000'"):
            call("acme-00000000")
    for stream in (client.watch, client.logs):
        with pytest.raises(NotFoundError, match="there is no build"):
            list(stream("acme-00000000"))


def test_lists_go_from_page_to_page(agent: GrpcAgent, client: GrpcClient) -> None:
    ids = [client.start(replace(ORDER, customer=f"c{n % 2}")).build_id for n in range(7)]
    agent.agent.finish(ids[3])
    newest = list(reversed(ids))
    assert [item.build_id for item in client.list()] == newest
    assert [item.build_id for item in client.list(limit=3)] == newest[:3]
    assert [item.build_id for item in client.list(limit=9, before=newest[2])] == newest[3:]
    assert [item.build_id for item in client.list(customer="c1")] == newest[1::2]
    assert [item.build_id for item in client.list(state=BuildState.COMPLETED)] == [ids[3]]
    assert all(item.is_summary for item in client.list())


def test_a_list_longer_than_a_page_is_brought_whole(agent: GrpcAgent, client: GrpcClient) -> None:
    ids = [client.start(ORDER).build_id for _ in range(5)]
    channel = grpc.insecure_channel(agent.socket)
    with channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ListBuilds",
            request_serializer=pb.ListBuildsRequest.SerializeToString,
            response_deserializer=pb.ListBuildsResponse.FromString,
        )
        seen: list[str] = []
        token, pages = "", 0
        while token or not pages:
            page = call(pb.ListBuildsRequest(page_size=2, page_token=token), timeout=30)
            seen += [item.build_id for item in page.builds]
            token, pages = page.next_page_token, pages + 1
    assert seen == list(reversed(ids))
    assert pages == 3


@pytest.mark.parametrize("size", [-1, 1001])
def test_a_page_of_another_size_is_refused(agent: GrpcAgent, size: int) -> None:
    with grpc.insecure_channel(agent.socket) as channel:
        call: Any = channel.unary_unary(
            f"/{SERVICE}/ListBuilds",
            request_serializer=pb.ListBuildsRequest.SerializeToString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(pb.ListBuildsRequest(page_size=size), timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("level", [CancelLevel.INTERRUPT, CancelLevel.KILL])
def test_cancel_asks_for_a_stop_of_that_level(
    agent: GrpcAgent, client: GrpcClient, level: CancelLevel
) -> None:
    record = client.start(ORDER)
    assert client.cancel(record.build_id, level).state is BuildState.CANCELLED
    ((build_id, reason, asked),) = agent.agent.cancelled
    assert (build_id, asked) == (record.build_id, level)
    assert reason.startswith("Cancelled by uid ")


def test_status_and_progress_of_a_build_come_without_its_config(
    agent: GrpcAgent, client: GrpcClient
) -> None:
    record = client.start(ORDER)
    agent.agent.show(record.build_id, progress=Progress(tasks_total=7), waiting_for="a turn")
    with grpc.insecure_channel(agent.socket) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/GetBuildStatus",
            request_serializer=pb.GetBuildStatusRequest.SerializeToString,
            response_deserializer=pb.GetBuildStatusResponse.FromString,
        )
        status = call(pb.GetBuildStatusRequest(build_id=record.build_id), timeout=30)
    assert (status.build.state, status.build.config_text) == (pb.BUILD_STATE_QUEUED, "")
    assert (status.progress.tasks_total, status.waiting_for) == (7, "a turn")


def test_watching_shows_each_change_until_the_end(agent: GrpcAgent, client: GrpcClient) -> None:
    build_id = client.start(ORDER).build_id
    views = client.watch(build_id)
    assert next(views).record.state is BuildState.QUEUED
    agent.agent.show(build_id, notes=("pulling", "unpacking"), waiting_for="the disk")
    seen = _until(views, lambda view: bool(view.notes))
    assert seen.notes == (Note(1, "pulling"), Note(2, "unpacking"))
    assert seen.waiting_for == "the disk"
    agent.agent.change(build_id, state=BuildState.BUILDING)
    agent.agent.show(build_id, progress=Progress(tasks_total=9), notes=("go",))
    seen = _until(views, lambda view: view.progress is not None)
    assert seen.record.state is BuildState.BUILDING
    assert seen.notes == (Note(3, "go"),)
    agent.agent.finish(build_id)
    assert [view.record.state for view in views][-1] is BuildState.COMPLETED


def test_watching_a_build_that_is_over_shows_it_once(agent: GrpcAgent, client: GrpcClient) -> None:
    record = agent.agent.finish(client.start(ORDER).build_id)
    (view,) = client.watch(record.build_id)
    assert view.record == replace(record, order={})


def test_logs_come_whole_from_an_offset_or_by_lines(agent: GrpcAgent, client: GrpcClient) -> None:
    build_id = client.start(ORDER).build_id
    assert list(client.logs(build_id)) == []
    agent.write(build_id, b"one\ntwo\nthree\n")
    assert list(client.logs(build_id)) == [(0, b"one\ntwo\nthree\n")]
    assert list(client.logs(build_id, offset=4)) == [(4, b"two\nthree\n")]
    assert list(client.logs(build_id, tail=1)) == [(8, b"three\n")]
    assert list(client.logs(build_id, offset=99)) == []


def test_followed_logs_end_with_the_build(agent: GrpcAgent, client: GrpcClient) -> None:
    build_id = client.start(ORDER).build_id
    agent.write(build_id, b"history\n")
    chunks = client.logs(build_id, follow=True)
    assert next(chunks) == (0, b"history\n")
    agent.write(build_id, b"live\n")
    assert next(chunks) == (8, b"live\n")
    agent.agent.finish(build_id)
    assert list(chunks) == []
    assert agent.agent.watchers_of(build_id) == 0


def test_delete_hides_and_purge_removes(agent: GrpcAgent, client: GrpcClient) -> None:
    build_id = client.start(ORDER).build_id
    with pytest.raises(ConflictError, match="still queued"):
        client.delete(build_id)
    agent.agent.finish(build_id)
    client.delete(build_id)
    assert client.list() == []
    assert client.purge(datetime.now(UTC) - timedelta(days=1)) == ()
    assert client.purge() == (build_id,)


def test_status_of_the_agent(agent: GrpcAgent, client: GrpcClient) -> None:
    record = client.start(ORDER)
    assert client.status() == agent.agent.status()
    assert list(client.status().queued) == [record.build_id]


def test_drain_and_stop_reach_the_agent(agent: GrpcAgent, client: GrpcClient) -> None:
    client.drain()
    with pytest.raises(BusyError, match="drains"):
        client.start(ORDER)
    client.stop(cancel_builds=True)
    assert agent.agent.stopped_with is True


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("no such key", where="smidr.yaml:3:1", hint="Did you mean `targets`?"),
        HostError("the disk is full", kind=FailureKind.DISK),
        BusyError("too many", hint="Later."),
    ],
)
def test_an_error_of_the_agent_arrives_as_it_was(
    agent: GrpcAgent, client: GrpcClient, error: HostError
) -> None:
    agent.agent.failure = error
    with pytest.raises(type(error)) as caught:
        client.start(ORDER)
    assert type(caught.value) is type(error)
    for name in ("message", "where", "hint", "kind"):
        assert getattr(caught.value, name) == getattr(error, name)


def test_a_fault_of_the_agent_tells_nothing_of_its_inside(
    agent: GrpcAgent, client: GrpcClient, caplog: pytest.LogCaptureFixture
) -> None:
    agent.agent.failure = KeyError("/root/secret")
    with pytest.raises(InternalError) as caught:
        client.status()
    assert "secret" not in str(caught.value)
    assert "a fault of the agent's own (KeyError)" in str(caught.value)
    assert "/root/secret" in caplog.text


def test_no_agent_at_the_address_is_said_at_once(tmp_path: Path) -> None:
    client = GrpcClient(f"unix:{tmp_path}/grpc.sock")
    with pytest.raises(HostError, match="no agent answers"):
        client.status()
    with pytest.raises(HostError, match="no agent answers"):
        list(client.logs("acme", follow=True))
    client.close()


@pytest.mark.parametrize("address", ["", "host", "host:", ":5", "host:0", "host:http", "ftp://a:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="no address of an agent"):
        GrpcClient(address)


def _until(views: Iterator[BuildView], is_it: Callable[[BuildView], bool]) -> BuildView:
    return next(view for view in views if is_it(view))
