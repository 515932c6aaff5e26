"""What a store does, and what goes wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.stores.content import Content

__all__ = ["MissingObjectError", "ObjectStore", "Pause", "Readable", "StoreError", "StoredObject"]

Pause = Callable[[float], object]
"""Waits so many seconds between attempts."""


class StoreError(SmidrError):
    """The store does not answer, refuses, or is full; `is_passing` says it may work later."""

    kind = FailureKind.HOST

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        kind: FailureKind | None = None,
        is_passing: bool = False,
    ) -> None:
        super().__init__(message, where=where, hint=hint, kind=kind)
        self.is_passing = is_passing


class MissingObjectError(StoreError):
    """There is no object with this key."""


@dataclass(frozen=True)
class StoredObject:
    """What the store says of an object."""

    key: str
    size_bytes: int
    sha256: str = ""
    """64 hex digits; empty where the store does not tell without reading all of it."""
    modified: datetime | None = None


class Readable(Protocol):
    """An object on its way to us."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; empty at the end. Raises `StoreError` when it is cut off."""


class ObjectStore(Protocol):
    """Objects by key; see `keys.object_key` for keys made of strangers' names.

    All methods may be called from any thread, repeat what fails in passing by themselves, and
    raise `StoreError`; a key that is no key raises `ValueError`. Memory stays flat.
    """

    @property
    def where(self) -> str:
        """The store for messages: its URL, without a secret."""

    def put(self, key: str, content: Content, cancel: CancelToken | None = None) -> StoredObject:
        """Store exactly this content; an equal object is left as it is, another is replaced.

        Nobody ever sees a part of it. Raises `ChangedError` when the source is not what `content`
        says, `OSError` when it can't be read, and `CancelledError`.
        """

    def head(self, key: str) -> StoredObject | None:
        """What is there; None for nothing."""

    def open(self, key: str) -> AbstractContextManager[Readable]:
        """Read an object as a stream; raises `MissingObjectError`."""

    def url(self, key: str) -> str:
        """The link for a reader, whether or not it is there; empty when readers have none."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is fine."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose keys begin like this, in no order.

        Raises `StoreError` for a store that can't list (plain HTTP).
        """

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
