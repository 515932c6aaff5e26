"""What strangers and broken clients do to the gRPC server, and that it stays well."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from smidr_ci.api.callers import Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc.client import GrpcClient
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.api.grpc.methods import MAX_START_BYTES, SERVICE
from smidr_ci.api.limits import MAX_CONFIG_BYTES
from smidr_ci.api.tls import load_client_tls, load_server_tls
from smidr_ci.config.api import Api
from smidr_ci.errors import (
    AgentUnreachableError,
    ForbiddenError,
    HostError,
    TooLargeError,
    UnauthenticatedError,
)
from smidr_ci.home import Home
from tests.fakes.certificates import Authority
from tests.fakes.grpc_agent import GrpcAgent

ORDER = StartRequest(customer="acme", config_text="name: demo\n", config_name="smidr.yaml")
TIMEOUT_S = 30


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def agent(home: Home) -> Iterator[GrpcAgent]:
    with GrpcAgent(home) as running:
        yield running


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def far(agent: GrpcAgent, closing: ExitStack, **options: Any) -> GrpcClient:
    client = GrpcClient(agent.address, **options)
    closing.callback(client.close)
    return client


def raw_call(address: str, method: str, request: bytes, **options: Any) -> bytes:
    """One call with any bytes; raises `grpc.RpcError`."""
    target = address.removeprefix("grpc://")
    with grpc.insecure_channel(target, [("grpc.max_send_message_length", -1)]) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
        return bytes(call(request, timeout=TIMEOUT_S, **options))


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def is_well(agent: GrpcAgent) -> bool:
    client = agent.client()
    try:
        return client.status().version == "1.2.3"
    finally:
        client.close()


def test_tcp_needs_a_token(agent: GrpcAgent, closing: ExitStack) -> None:
    for token in (None, "nonsense", "Bearer x", "x" * 2000):
        with pytest.raises(UnauthenticatedError, match="a valid token"):
            far(agent, closing, token=token).status()
    good = agent.tokens.create("ci", Scope.READ)[1]
    assert far(agent, closing, token=good).status().version == "1.2.3"


def test_a_revoked_token_is_good_for_nothing(agent: GrpcAgent, closing: ExitStack) -> None:
    token = agent.tokens.create("ci", Scope.READ)[1]
    client = far(agent, closing, token=token)
    client.status()
    agent.tokens.revoke("ci")
    with pytest.raises(UnauthenticatedError):
        client.status()


def test_each_method_needs_its_scope(agent: GrpcAgent, closing: ExitStack) -> None:
    reader = far(agent, closing, token=agent.tokens.create("r", Scope.READ)[1])
    builder = far(agent, closing, token=agent.tokens.create("b", Scope.BUILD)[1])
    build_id = builder.start(ORDER).build_id
    assert reader.get(build_id).requested_by == "token b"
    for refused in (
        lambda: reader.start(ORDER),
        lambda: reader.cancel(build_id),
        lambda: builder.delete(build_id),
        builder.purge,
        builder.drain,
        builder.stop,
    ):
        with pytest.raises(ForbiddenError, match="needs the scope"):
            refused()
    assert agent.agent.cancelled == []
    assert agent.agent.stopped_with is None


def test_a_stranger_is_refused_before_the_request_is_read(agent: GrpcAgent) -> None:
    # The server does not wait for the message that this client never sends.
    channel = grpc.insecure_channel(agent.address.removeprefix("grpc://"))
    with channel:
        call: Any = channel.stream_unary(f"/{SERVICE}/StartBuild")
        never = _never()
        try:
            assert code_of(lambda: call(never, timeout=10)) is grpc.StatusCode.UNAUTHENTICATED
        finally:
            never.close()


def test_a_config_over_a_mebibyte_is_refused(agent: GrpcAgent, closing: ExitStack) -> None:
    client = agent.client()
    closing.callback(client.close)
    with pytest.raises(TooLargeError, match="the config has"):
        client.start(replace(ORDER, config_text="#" * (MAX_CONFIG_BYTES + 1)))
    with pytest.raises(TooLargeError, match="larger than max"):
        client.start(replace(ORDER, bundle=bytes(MAX_START_BYTES)))
    assert agent.agent.orders == []
    assert is_well(agent)


def test_a_big_request_of_a_small_method_is_refused(agent: GrpcAgent) -> None:
    request = pb.GetBuildRequest(build_id="x" * 100_000).SerializeToString()
    answer = code_of(lambda: raw_call(agent.socket, "GetBuild", request))
    assert answer is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_bomb_is_not_unpacked(agent: GrpcAgent) -> None:
    bomb = pb.StartBuildRequest(config_text="x" * (200 << 20)).SerializeToString()
    before = _peak_memory()
    answer = code_of(
        lambda: raw_call(agent.socket, "StartBuild", bomb, compression=grpc.Compression.Gzip)
    )
    assert answer in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
    assert _peak_memory() - before < 150 << 20  # the client has the bomb already
    assert is_well(agent)


@pytest.mark.parametrize("method", ["GetBuild", "StreamLogs", "StartBuild", "WatchBuild"])
def test_bytes_that_are_no_request_are_refused(agent: GrpcAgent, method: str) -> None:
    answer = code_of(lambda: raw_call(agent.socket, method, b"\xff\xfe\x00garbage"))
    assert answer is grpc.StatusCode.INVALID_ARGUMENT


def test_a_call_without_a_request_is_refused(agent: GrpcAgent) -> None:
    with grpc.insecure_channel(agent.socket) as channel:
        call: Any = channel.stream_unary(f"/{SERVICE}/GetBuild")
        assert code_of(lambda: call(iter(()), timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("StreamLogs", pb.StreamLogsRequest(build_id="acme", offset=-1)),
        ("StreamLogs", pb.StreamLogsRequest(build_id="acme", tail_lines=-1)),
        ("StreamLogs", pb.StreamLogsRequest(build_id="acme", tail_lines=2**40)),
        ("ListBuilds", pb.ListBuildsRequest(page_size=2**31 - 1)),
        ("CancelBuild", pb.CancelBuildRequest(build_id="acme", level=7)),  # type: ignore[arg-type] # a stranger's
        ("ListBuilds", pb.ListBuildsRequest(state=77)),  # type: ignore[arg-type] # a stranger's
        ("PurgeBuilds", pb.PurgeBuildsRequest(deleted_before={"seconds": 2**62})),
        ("PurgeBuilds", pb.PurgeBuildsRequest(deleted_before={"seconds": -(2**62)})),
        ("PurgeBuilds", pb.PurgeBuildsRequest(deleted_before={"nanos": -5})),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    agent: GrpcAgent, closing: ExitStack, method: str, request_message: Any
) -> None:
    client = agent.client()
    closing.callback(client.close)
    client.start(ORDER)
    request = request_message.SerializeToString()
    answer = code_of(lambda: raw_call(agent.socket, method, request))
    assert answer is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("build_id", ["../../etc", "a\x00b", "%", "_", "", "x" * 60_000, "acmé"])
def test_an_id_that_is_none_leads_nowhere(agent: GrpcAgent, build_id: str) -> None:
    for method, kind in (
        ("GetBuild", pb.GetBuildRequest),
        ("StreamLogs", pb.StreamLogsRequest),
        ("ListArtifacts", pb.ListArtifactsRequest),
    ):
        request = kind(build_id=build_id).SerializeToString()
        answer = code_of(lambda m=method, r=request: raw_call(agent.socket, m, r))  # type: ignore[misc] # defaults
        assert answer is grpc.StatusCode.NOT_FOUND


def test_a_thousand_connections_that_say_nothing_hurt_nobody(agent: GrpcAgent) -> None:
    with ExitStack() as stack:
        for number in range(1000):
            line = stack.enter_context(
                socket.create_connection(("127.0.0.1", agent.port), timeout=TIMEOUT_S)
            )
            if number % 3 == 1:
                line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            elif number % 3 == 2:
                line.sendall(os.urandom(100))
        began = time.monotonic()
        assert is_well(agent)
        with pytest.raises(UnauthenticatedError):
            far(agent, stack).status()
        assert time.monotonic() - began < 5
    assert is_well(agent)


def test_a_connection_that_says_nothing_is_closed_after_a_while(home: Home) -> None:
    with (
        GrpcAgent(home, handshake_timeout_s=0.5) as agent,
        socket.create_connection(("127.0.0.1", agent.port), timeout=TIMEOUT_S) as line,
    ):
        while line.recv(1 << 16):  # the server's own greeting comes first
            pass


def test_health_answers_strangers_and_follows_the_drain(agent: GrpcAgent) -> None:
    with grpc.insecure_channel(agent.address.removeprefix("grpc://")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest
        serving, draining = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        assert stub.Check(request(), timeout=TIMEOUT_S).status == serving
        assert stub.Check(request(service=SERVICE), timeout=TIMEOUT_S).status == serving
        unknown = code_of(lambda: stub.Check(request(service="x"), timeout=TIMEOUT_S))
        assert unknown is grpc.StatusCode.NOT_FOUND
        watching = stub.Watch(request(service=SERVICE), timeout=TIMEOUT_S)
        assert next(watching).status == serving
        agent.agent.drain()
        assert next(watching).status == draining
        assert stub.Check(request(), timeout=TIMEOUT_S).status == draining
        watching.cancel()


def test_only_so_many_strangers_watch_health(agent: GrpcAgent) -> None:
    with grpc.insecure_channel(agent.address.removeprefix("grpc://")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(32)]
        for one in watching:
            next(one)
        more = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert code_of(lambda: next(more)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for one in watching:
            one.cancel()


def test_reflection_describes_the_service_to_who_may_call_it(agent: GrpcAgent) -> None:
    with grpc.insecure_channel(agent.socket) as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in found.get_services()
        file = found.FindFileContainingSymbol(SERVICE)
        assert [method.name for method in file.service[0].method][:2] == [
            "StartBuild",
            "GetBuildStatus",
        ]
    with grpc.insecure_channel(agent.address.removeprefix("grpc://")) as channel:
        strange: Any = ProtoReflectionDescriptorDatabase(channel)
        assert code_of(strange.get_services) is grpc.StatusCode.UNAUTHENTICATED


def test_the_socket_is_for_its_user_alone_whatever_the_umask(home: Home) -> None:
    before = os.umask(0)
    try:
        with GrpcAgent(home):
            assert stat.S_IMODE(home.grpc_socket.stat().st_mode) == 0o600
            assert [path.name for path in home.root.iterdir() if ".grpc-" in path.name] == []
    finally:
        os.umask(before)
    assert not home.grpc_socket.exists()


def test_a_socket_at_a_long_path_works(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 30) / "home")
    assert len(str(home.grpc_socket)) > 150
    with GrpcAgent(home) as agent:
        assert is_well(agent)


def test_a_socket_that_a_dead_agent_left_is_replaced(home: Home) -> None:
    home.root.mkdir(parents=True)
    os.mknod(home.grpc_socket, stat.S_IFSOCK | 0o600)
    with GrpcAgent(home) as agent:
        assert is_well(agent)


def test_a_socket_that_somebody_listens_on_stays_theirs(home: Home, agent: GrpcAgent) -> None:
    with pytest.raises(HostError, match="an agent listens there already"), GrpcAgent(home):
        pass
    assert is_well(agent)


def test_a_file_in_the_socket_s_place_is_not_removed(home: Home) -> None:
    home.root.mkdir(parents=True)
    home.grpc_socket.write_text("precious")
    with pytest.raises(HostError, match="in the way"), GrpcAgent(home):
        pass
    assert home.grpc_socket.read_text() == "precious"


def test_a_port_in_use_is_refused(agent: GrpcAgent, tmp_path: Path) -> None:
    with (
        pytest.raises(HostError, match="can't listen there"),
        GrpcAgent(Home(tmp_path / "other"), port=agent.port),
    ):
        pass
    assert is_well(agent)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def secure_settings(authority: Authority, **more: Any) -> Api:
    certificate, key, _ = authority.issue("server")
    return Api(tls_certificate_file=certificate, tls_key_file=key, **more)


def test_tls_keeps_who_does_not_trust_the_server_away(
    home: Home, authority: Authority, closing: ExitStack, tmp_path: Path
) -> None:
    settings = secure_settings(authority)
    tls = load_server_tls(settings, datetime.now(UTC))
    with GrpcAgent(home, tls=tls, settings=settings) as agent:
        token = agent.tokens.create("ci", Scope.READ)[1]
        assert agent.address.startswith("grpcs://")
        good = far(agent, closing, token=token, tls=load_client_tls(authority.path))
        assert good.status().version == "1.2.3"
        other = Authority(tmp_path / "elsewhere")
        with pytest.raises(AgentUnreachableError):
            far(agent, closing, token=token, tls=load_client_tls(other.path)).status()
        with pytest.raises(AgentUnreachableError):
            far(agent, closing, token=token).status()  # this host's own authorities
        plain = GrpcClient(agent.address.replace("grpcs", "grpc"), token=token)
        closing.callback(plain.close)
        with pytest.raises(AgentUnreachableError):
            plain.status()


def test_a_client_s_certificate_says_who_it_is(
    home: Home, authority: Authority, closing: ExitStack, tmp_path: Path
) -> None:
    settings = secure_settings(
        authority, client_ca_file=authority.path, client_certificates={"ops": "admin"}
    )
    tls = load_server_tls(settings, datetime.now(UTC))
    with GrpcAgent(home, tls=tls, settings=settings) as agent:
        for name, may_drain in (("ops", True), ("dev", False)):
            certificate, key, _ = authority.issue(name, is_client=True)
            client = far(agent, closing, tls=load_client_tls(authority.path, certificate, key))
            assert client.start(ORDER).requested_by == f"certificate {name}"
            if not may_drain:
                with pytest.raises(ForbiddenError):
                    client.drain()
            else:
                client.purge()
        with pytest.raises(AgentUnreachableError):
            far(agent, closing, tls=load_client_tls(authority.path)).status()
        stranger = Authority(tmp_path / "elsewhere").issue("ops", is_client=True)
        with pytest.raises(AgentUnreachableError):
            far(
                agent, closing, tls=load_client_tls(authority.path, stranger[0], stranger[1])
            ).status()


def _never() -> Any:
    """Requests that don't come until the generator is closed."""

    class Never:
        def __init__(self) -> None:
            import threading

            self._closed = threading.Event()

        def __iter__(self) -> Never:
            return self

        def __next__(self) -> bytes:
            self._closed.wait()
            raise StopIteration

        def close(self) -> None:
            self._closed.set()

    return Never()


def _peak_memory() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError
