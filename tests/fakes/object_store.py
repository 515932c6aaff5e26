"""A store in memory that counts what it is asked, and fails on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BytesIO

from smidr_ci.cancel import CancelToken
from smidr_ci.stores.content import CheckedReader, Content
from smidr_ci.stores.keys import check_key
from smidr_ci.stores.model import MissingObjectError, Readable, StoredObject, StoreError

__all__ = ["MemoryStore"]


class MemoryStore:
    """Implements `ObjectStore`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        """`head KEY`, `put KEY`, `open KEY`, in this order."""
        self.fails_after: int | None = None
        """So many more calls work."""
        self.sha256: str | None = None
        """What it says of every object instead of the truth."""

    @property
    def where(self) -> str:
        return "memory"

    def put(self, key: str, content: Content, cancel: CancelToken | None = None) -> StoredObject:
        self._note("put", key)
        with content.opened() as source:
            self.objects[key] = CheckedReader(source, content, cancel).read()
        return self._described(key)

    def head(self, key: str) -> StoredObject | None:
        self._note("head", key)
        return self._described(key) if key in self.objects else None

    def open(self, key: str) -> AbstractContextManager[Readable]:
        self._note("open", key)
        if key not in self.objects:
            raise MissingObjectError(f"there is no {key}")
        return BytesIO(self.objects[key])

    def url(self, key: str) -> str:
        return check_key(key) and ""

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return (self._described(key) for key in self.objects if key.startswith(prefix))

    def close(self) -> None:
        pass

    def _described(self, key: str) -> StoredObject:
        raw = self.objects[key]
        return StoredObject(key, len(raw), self.sha256 or hashlib.sha256(raw).hexdigest())

    def _note(self, verb: str, key: str) -> None:
        self.asked.append(f"{verb} {check_key(key)}")
        if self.fails_after is not None:
            if self.fails_after <= 0:
                raise StoreError("the store is away", is_passing=True)
            self.fails_after -= 1
