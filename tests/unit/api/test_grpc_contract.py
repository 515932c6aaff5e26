"""The service's description, the code made from it, and how errors travel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from smidr_ci.api.grpc.failures import (
    ERROR_KEY,
    code_of,
    details_of,
    error_from,
    is_lost,
    trailer_of,
)
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.errors import (
    AgentUnreachableError,
    BuildFailedError,
    BusyError,
    CacheError,
    CancelledError,
    ConfigError,
    ConflictError,
    EngineError,
    FailureKind,
    ForbiddenError,
    HostError,
    ImageError,
    InternalError,
    LayerError,
    NotFoundError,
    SmidrError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
)
from smidr_ci.home import Home
from tests.fakes.grpc_agent import GrpcAgent
from tools import generate_protos

ROOT = Path(generate_protos.__file__).parent.parent


class Failed:
    """A call that failed, as a client sees it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailer: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        self._code, self._details, self._trailer = code, details, trailer

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._trailer


def sent(error: SmidrError) -> SmidrError:
    return error_from(Failed(code_of(error), details_of(error), trailer_of(error)), "host:1")


def test_the_generated_code_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_protos.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_every_message_field_and_method_is_described() -> None:
    text = (ROOT / "proto/smidr/v1/smidr.proto").read_text(encoding="utf-8").splitlines()
    needs = re.compile(r"^\s*(message|enum|service|rpc|oneof|optional|repeated|map<|\w+ \w+ = \d)")
    bare = [
        line
        for before, line in zip(["", *text], text, strict=False)
        if needs.match(line)
        and not before.lstrip().startswith("//")
        and not line.startswith("service ")  # the file's own head is about it
    ]
    assert bare == []


def test_the_server_has_each_method_of_the_service(tmp_path: Path) -> None:
    with GrpcAgent(Home(tmp_path / "home")) as agent, grpc.insecure_channel(agent.socket) as line:
        service = pb.DESCRIPTOR.services_by_name["Smidr"]
        for method in service.methods:
            call: Any = line.unary_unary(f"/{service.full_name}/{method.name}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff", timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method.name


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
        (ConfigError, grpc.StatusCode.INVALID_ARGUMENT),
        (LayerError, grpc.StatusCode.INVALID_ARGUMENT),
        (NotFoundError, grpc.StatusCode.NOT_FOUND),
        (ConflictError, grpc.StatusCode.FAILED_PRECONDITION),
        (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
        (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
        (EngineError, grpc.StatusCode.UNAVAILABLE),
        (ImageError, grpc.StatusCode.UNAVAILABLE),
        (CacheError, grpc.StatusCode.UNAVAILABLE),
        (HostError, grpc.StatusCode.UNAVAILABLE),
        (BuildFailedError, grpc.StatusCode.FAILED_PRECONDITION),
        (CancelledError, grpc.StatusCode.FAILED_PRECONDITION),
        (InternalError, grpc.StatusCode.INTERNAL),
    ],
)
def test_an_error_has_a_code_and_comes_back_as_its_class(
    kind: type[SmidrError], code: grpc.StatusCode
) -> None:
    error = kind("what", where="here:1:2", hint="Do so.")
    assert code_of(error) is code
    back = sent(error)
    assert type(back) is kind
    assert (back.message, back.where, back.hint) == ("what", "here:1:2", "Do so.")
    assert back.kind is error.kind


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_comes_back(kind: FailureKind) -> None:
    assert sent(SmidrError("what", kind=kind)).kind is kind


def test_when_to_ask_again_comes_back() -> None:
    error = BusyError("too many requests")
    error.retry_after_s = 2.5
    back = sent(error)
    assert isinstance(back, BusyError)
    assert back.retry_after_s == 2.5


def test_an_error_never_outgrows_what_clients_take() -> None:
    error = ConfigError("ä" * 100_000, where="w\n" * 9999, hint="\ud800" * 9999)
    trailer = trailer_of(error)
    size = len(details_of(error).encode()) * 3 + sum(len(value) * 4 // 3 for _, value in trailer)
    assert size < 8 * 1024
    assert sent(error).message.startswith("ääää")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, AgentUnreachableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, AgentUnreachableError),
        (grpc.StatusCode.CANCELLED, AgentUnreachableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TooLargeError),
        (grpc.StatusCode.UNIMPLEMENTED, UsageError),
        (grpc.StatusCode.UNKNOWN, InternalError),
    ],
)
def test_a_status_that_no_agent_sent_says_what_it_means(
    code: grpc.StatusCode, kind: type[SmidrError]
) -> None:
    error = error_from(Failed(code, "said"), "host:1")
    assert type(error) is kind
    assert error.where == "host:1"
    assert "said" in error.message


def test_an_agent_that_says_no_is_not_lost() -> None:
    assert is_lost(Failed(grpc.StatusCode.UNAVAILABLE))
    assert not is_lost(Failed(grpc.StatusCode.NOT_FOUND))
    engine = EngineError("the engine does not answer")
    assert not is_lost(Failed(code_of(engine), "", trailer_of(engine)))
    assert is_lost(Failed(grpc.StatusCode.UNAVAILABLE, "", ((ERROR_KEY, b"\xff"),)))
