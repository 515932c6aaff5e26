"""Whether a store works: a small object is written, found, read and deleted again."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from smidr_ci.stores.content import Content
from smidr_ci.stores.model import ObjectStore, StoreError

__all__ = ["PROBE_PREFIX", "probe_store"]

PROBE_PREFIX: Final = "smidr-probe-"
_BYTES: Final = 256


def probe_store(store: ObjectStore, look: Callable[[str, bytes], None] | None = None) -> None:
    """Raises `SmidrError` for what does not work; nothing is left in the store.

    `look` is called with the object's link, if there is one, and its content, while it is there.
    """
    key, raw = f"{PROBE_PREFIX}{secrets.token_hex(8)}", secrets.token_bytes(_BYTES)
    store.put(key, Content.of_bytes(raw))
    try:
        found = store.head(key)
        if found is None or found.size_bytes not in {-1, len(raw)}:
            raise StoreError("what was just written is not found", where=f"{store.where}/{key}")
        with store.open(key) as stream:
            if stream.read(_BYTES * 2) != raw:
                raise StoreError("what was read is not what was written", where=store.where)
        if look is not None and (url := store.url(key)):
            look(url, raw)
    finally:
        store.delete(key)
    if store.head(key) is not None:
        raise StoreError(
            "what was deleted is still there",
            where=f"{store.where}/{key}",
            hint="The login may need the right to delete, or a cache stands before the store.",
        )
