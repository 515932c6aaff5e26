"""A `SmidrError` as a gRPC status and back.

The status has the code and a short text for any client; the trailing metadata `smidr-error-bin` has
the whole error (`smidr.v1.Error`), from which our client makes the same exception again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from smidr_ci.api.grpc.convert import enum_from, enum_value
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

__all__ = ["ERROR_KEY", "code_of", "details_of", "error_from", "is_lost", "trailer_of"]

ERROR_KEY: Final = "smidr-error-bin"
_MAX_DETAILS: Final = 512
# gRPC's clients take 8 KiB of metadata by default, and binary values grow by a third.
_MAX_MESSAGE: Final = 3072
_MAX_WHERE: Final = 512
_MAX_HINT: Final = 768

_CODES: Final[tuple[tuple[type[SmidrError], grpc.StatusCode], ...]] = (
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (ForbiddenError, grpc.StatusCode.PERMISSION_DENIED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (ConflictError, grpc.StatusCode.FAILED_PRECONDITION),
    (TooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
_REFUSED: Final = frozenset({FailureKind.USAGE, FailureKind.CONFIG, FailureKind.LAYERS})
_CLASSES: Final[Mapping[FailureKind, type[SmidrError]]] = {
    FailureKind.USAGE: UsageError,
    FailureKind.CONFIG: ConfigError,
    FailureKind.LAYERS: LayerError,
    FailureKind.ENGINE: EngineError,
    FailureKind.IMAGE: ImageError,
    FailureKind.CACHE: CacheError,
    FailureKind.DISK: HostError,
    FailureKind.HOST: HostError,
    FailureKind.BUILD: BuildFailedError,
    FailureKind.CANCELLED: CancelledError,
    FailureKind.INTERNAL: InternalError,
}
_LOST: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,  # what calls get that an agent was serving when it ended
    }
)


class Status(Protocol):
    """What a failed call knows; `grpc.RpcError`s of clients have it."""

    def code(self) -> grpc.StatusCode:
        """The status code."""

    def details(self) -> str | None:
        """The text with it."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What came with the status."""


def code_of(error: SmidrError) -> grpc.StatusCode:
    """The status code that fits best."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if error.kind in _REFUSED:
        return grpc.StatusCode.INVALID_ARGUMENT
    if error.kind is FailureKind.INTERNAL:
        return grpc.StatusCode.INTERNAL
    is_hosts = error.kind.is_infrastructure
    return grpc.StatusCode.UNAVAILABLE if is_hosts else grpc.StatusCode.FAILED_PRECONDITION


def details_of(error: SmidrError) -> str:
    """The error in one short line."""
    head = f"{error.where}: {error.message}" if error.where else error.message
    return _cut(" ".join(head.split()), _MAX_DETAILS)


def trailer_of(error: SmidrError) -> tuple[tuple[str, bytes], ...]:
    """The error as metadata; overlong parts are cut."""
    message = pb.Error(
        kind=pb.FailureKind.Name(enum_value(pb.FailureKind.DESCRIPTOR, error.kind)),
        message=_cut(error.message, _MAX_MESSAGE),
        where=_cut(error.where, _MAX_WHERE),
        hint=_cut(error.hint, _MAX_HINT),
        retry_after_s=(error.retry_after_s or 0) if isinstance(error, BusyError) else 0,
    )
    return ((ERROR_KEY, message.SerializeToString()),)


def is_lost(status: Status) -> bool:
    """Whether the connection or the agent went away, rather than the agent saying no."""
    return status.code() in _LOST and _sent_error(status) is None


def error_from(status: Status, address: str) -> SmidrError:
    """The agent's error; or what it means that none came."""
    sent = _sent_error(status)
    if sent is not None:
        return _rebuilt(sent, status.code())
    said = status.details() or status.code().name
    if status.code() in _LOST:
        return AgentUnreachableError(
            f"no agent answers: {said}",
            where=address,
            hint="Check the address, and that 'smidr daemon' runs there.",
        )
    if status.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TooLargeError(f"the agent refuses: {said}", where=address)
    if status.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UsageError(
            f"what answers is no agent, or an older one: {said}",
            where=address,
            hint="Use the same version of smidr on both ends.",
        )
    return InternalError(f"the call failed ({status.code().name}): {said}", where=address)


def _sent_error(status: Status) -> pb.Error | None:
    for key, value in status.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            try:
                return pb.Error.FromString(value)
            except DecodeError:
                return None
    return None


def _rebuilt(sent: pb.Error, code: grpc.StatusCode) -> SmidrError:
    try:
        kind = enum_from(pb.FailureKind.DESCRIPTOR, FailureKind, sent.kind)
    except HostError:  # a kind of a newer agent
        kind = None
    kind = kind or FailureKind.INTERNAL
    made = _class_of(kind, code)(sent.message, where=sent.where, hint=sent.hint, kind=kind)
    if isinstance(made, BusyError) and sent.retry_after_s > 0:
        made.retry_after_s = sent.retry_after_s
    return made


def _class_of(kind: FailureKind, code: grpc.StatusCode) -> type[SmidrError]:
    base = _CLASSES.get(kind, SmidrError)
    for candidate, its_code in _CODES:
        if its_code is code and issubclass(candidate, base):
            return candidate
    return base


def _cut(text: str, max_bytes: int) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode()
    return raw[: max_bytes - 4].decode("utf-8", "ignore") + " ..."
