"""The closed list of failure kinds, and the one exception that means "tell the user and stop".

Code raises a `SmidrError`; only `cli.main` turns one into text and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

__all__ = [
    "AgentUnreachableError",
    "BuildFailedError",
    "BusyError",
    "CacheError",
    "CancelledError",
    "ConfigError",
    "ConflictError",
    "EngineError",
    "FailureKind",
    "ForbiddenError",
    "HostError",
    "ImageError",
    "InternalError",
    "LayerError",
    "NotFoundError",
    "SmidrError",
    "TooLargeError",
    "UnauthenticatedError",
    "UsageError",
]


class FailureKind(StrEnum):
    """Why something did not work; the same word labels metrics, records, checks and retries."""

    USAGE = "usage"
    CONFIG = "config"
    LAYERS = "layers"
    ENGINE = "engine"
    IMAGE = "image"
    DISK = "disk"
    CACHE = "cache"
    HOST = "host"
    FORGE = "forge"
    BUILD = "build"
    FETCH = "fetch"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    ARTIFACTS = "artifacts"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    INTERNAL = "internal"

    @property
    def exit_code(self) -> int:
        """The process exit code for this kind (architecture, invariant 10)."""
        return _EXIT_CODES.get(self, 1)

    @property
    def is_infrastructure(self) -> bool:
        """Whether the build host, not the project, is to blame."""
        return self in _INFRASTRUCTURE


_EXIT_CODES: Final = {
    FailureKind.USAGE: 2,
    FailureKind.CONFIG: 2,
    FailureKind.LAYERS: 3,
    FailureKind.ENGINE: 4,
    FailureKind.IMAGE: 4,
    FailureKind.DISK: 4,
    FailureKind.CACHE: 4,
    FailureKind.HOST: 4,
    FailureKind.FORGE: 5,
    FailureKind.INTERNAL: 6,
    FailureKind.CANCELLED: 130,
}

_INFRASTRUCTURE: Final = frozenset(
    {
        FailureKind.ENGINE,
        FailureKind.IMAGE,
        FailureKind.DISK,
        FailureKind.CACHE,
        FailureKind.HOST,
        FailureKind.FORGE,
        FailureKind.INTERRUPTED,
        FailureKind.INTERNAL,
    }
)


class SmidrError(Exception):
    """What happened, where, and what to do next.

    `where` is `file:line:column`, a URL, a path or a layer's name; `hint` is one or two sentences.
    Neither may hold a secret.
    """

    kind: FailureKind = FailureKind.INTERNAL

    def __init__(
        self, message: str, *, where: str = "", hint: str = "", kind: FailureKind | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.hint}" if self.hint else head


class UsageError(SmidrError):
    """The command line asks for something that does not exist or does not fit together."""

    kind = FailureKind.USAGE


class NotFoundError(UsageError):
    """There is no such build, artifact or page."""


class ConflictError(UsageError):
    """It can't be done in the state that the thing is in."""


class TooLargeError(UsageError):
    """What was sent is bigger than what is taken."""


class ConfigError(SmidrError):
    """`smidr.yaml` or `agent.yaml` can't be used as it stands."""

    kind = FailureKind.CONFIG


class LayerError(SmidrError):
    """A layer can't be fetched, is stale, or does not fit the others.

    `layers` are the names of the entries of `smidr.yaml` that it is about.
    """

    kind = FailureKind.LAYERS

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        kind: FailureKind | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__(message, where=where, hint=hint, kind=kind)
        self.layers = tuple(layers)


class EngineError(SmidrError):
    """The container engine does not answer or refuses."""

    kind = FailureKind.ENGINE


class ImageError(SmidrError):
    """A builder image can't be pulled or built."""

    kind = FailureKind.IMAGE


class CacheError(SmidrError):
    """A shared cache directory can't be used."""

    kind = FailureKind.CACHE


class HostError(SmidrError):
    """The build host lacks something: disk, permission, a tool."""

    kind = FailureKind.HOST


class BusyError(HostError):
    """The agent takes no more now: it drains, its queue is full, or somebody asks too often."""

    retry_after_s: float | None = None
    """Somebody asks too often: when it makes sense to ask again."""


class ForbiddenError(UsageError):
    """Whoever asks is not known, or may not do this."""


class UnauthenticatedError(ForbiddenError):
    """Whoever asks has not shown who they are."""


class AgentUnreachableError(HostError):
    """No agent answers at the address."""


class BuildFailedError(SmidrError):
    """BitBake ran and did not succeed, or what it left is not what was asked for."""

    kind = FailureKind.BUILD


class CancelledError(SmidrError):
    """Somebody cancelled; never to be reported as a failure."""

    kind = FailureKind.CANCELLED


class InternalError(SmidrError):
    """A fault of smidr's own."""

    kind = FailureKind.INTERNAL
