"""Files that a forge does not take go to a store of the operator's, and people get links."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smidr_ci.cancel import CancelToken
from smidr_ci.config.artifacts import ExternalStore
from smidr_ci.stores.content import Content
from smidr_ci.stores.keys import object_key
from smidr_ci.stores.model import ObjectStore
from smidr_ci.stores.opening import open_store
from smidr_ci.trust import Trust

__all__ = ["External", "PlacedFile", "opened_external", "why_no_store"]


@dataclass(frozen=True)
class PlacedFile:
    """A file in the store."""

    path: str
    """As the build or the job knows it."""
    size_bytes: int
    sha256: str
    url: str
    """Empty when readers have no link."""
    place: str
    """The link, or where the operator finds it."""


class External:
    """The operator's store for the files of one build or job; opened when the first one comes."""

    def __init__(self, settings: ExternalStore, names: tuple[str, ...]) -> None:
        """`names` is what the files lie below."""
        self._settings = settings
        self._names = names
        self._store: ObjectStore | None = None

    def put(self, path: str, content: Content, cancel: CancelToken | None = None) -> PlacedFile:
        """Store one file; what is there already is not sent again.

        Raises `StoreError`, `ConfigError`, `ChangedError`, `CancelledError`, and `OSError` for its
        source.
        """
        if self._store is None:
            self._store = open_store(self._settings)
        store, key = self._store, object_key(*self._names, path)
        stored = store.put(key, content, cancel)
        url = store.url(key)
        place = url or f"{store.where}/{key}"
        return PlacedFile(path, stored.size_bytes, content.sha256, url, place)

    def close(self) -> None:
        """Close connections."""
        if self._store is not None:
            self._store.close()


@contextmanager
def opened_external(
    settings: ExternalStore | None, names: tuple[str, ...], trust: Trust
) -> Iterator[External | None]:
    """The store for these files; None when the operator has none for them."""
    if settings is None or why_no_store(settings, trust):
        yield None
        return
    if trust is not Trust.TRUSTED:
        names = ("untrusted", *names)
    external = External(settings, names)
    try:
        yield external
    finally:
        external.close()


def why_no_store(settings: ExternalStore | None, trust: Trust) -> str:
    """What to do so that such files are stored; empty when they are."""
    if settings is None:
        return "The operator of the build host can set artifacts.external_store in agent.yaml."
    if trust is not Trust.TRUSTED and not settings.untrusted:
        return (
            "This build is not trusted, and the build host's artifacts.external_store takes no"
            " files of such builds."
        )
    return ""
