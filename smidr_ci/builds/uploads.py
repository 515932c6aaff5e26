"""Uploads of what this host made to the store that hosts share, and how they stand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.cancel import CancelToken
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.errors import ConflictError, HostError, SmidrError, UsageError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.locks import take_lock
from smidr_ci.sharing.ledger import Ledger
from smidr_ci.sharing.names import DOWNLOADS, SSTATE
from smidr_ci.sharing.scan import SharedTree, new_in
from smidr_ci.sharing.uploading import Round, Tally
from smidr_ci.stores.opening import open_store

__all__ = ["ShareFacts", "share_facts", "upload"]

_LOCK: Final = "share-upload.lock"


@dataclass(frozen=True)
class ShareFacts:
    """How the uploads of this host stand."""

    url: str
    is_uploading: bool
    """Whether this host uploads at all."""
    waiting: int
    """Objects and downloads that changed since the store was asked for them."""
    uploaded: int
    uploaded_bytes: int
    last_round: datetime | None
    """When all that was new had been offered."""
    last_error: str
    """Why the last round did not come to its end; empty when it did."""
    damaged: tuple[str, ...]
    """Files that were not uploaded, since they are damaged, and why."""


def upload(
    host: Host,
    cancel: CancelToken,
    told: Callable[[str], object] = lambda _: None,
    *,
    everything: bool = False,
) -> Tally:
    """Upload what is new, or ask the store for `everything` that the caches hold.

    Raises `SmidrError`: `UsageError` when nothing is shared, `ConflictError` while another process
    uploads, `StoreError` when the store fails, and `CancelledError`.
    """
    settings = host.agent.cache.share
    if settings is None or not settings.upload:
        raise UsageError(
            "this host uploads nothing",
            where=str(host.home.agent_config),
            hint="Set cache.share.url in agent.yaml, and leave cache.share.upload on.",
        )
    make_private_dir(host.home.locks)
    lock = take_lock(host.home.locks / _LOCK, host.clock)
    if lock is None:
        raise ConflictError("another process uploads to the shared cache", hint="Ask again later.")
    try:
        with lock, Ledger(host.home.share_ledger, settings.url) as ledger:
            if everything:
                ledger.forget_folders()
            return _upload(host, settings, ledger, cancel, told)
    except sqlite3.Error as error:
        raise _unusable(host, error) from error


def _upload(
    host: Host,
    settings: SharedCaches,
    ledger: Ledger,
    cancel: CancelToken,
    told: Callable[[str], object],
) -> Tally:
    with closing(open_store(settings.written, pause=cancel.wait)) as store:
        work = Round(store, ledger, cancel, told)
        error = "it was ended before"
        try:
            work.run(_trees(host, settings))
            error = ""
            ledger.state(ended=host.clock.now().isoformat())
        except OSError as problem:
            error = str(problem)
            raise as_host_error(problem, "can't look into a cache", host.home.root) from problem
        except SmidrError as problem:
            error = str(problem)
            raise
        finally:
            tally = work.tally
            ledger.state(error=error)
            ledger.count(uploaded=tally.uploaded, uploaded_bytes=tally.uploaded_bytes)
    return work.tally


def share_facts(host: Host, cancel: CancelToken | None = None) -> ShareFacts | None:
    """How uploads stand, with a look into the caches; None when nothing is shared.

    Raises `OSError`, `HostError`, `CancelledError`.
    """
    settings = host.agent.cache.share
    if settings is None:
        return None
    try:
        with Ledger(host.home.share_ledger, settings.url) as ledger:
            return _facts(host, settings, ledger, cancel or CancelToken())
    except sqlite3.Error as error:
        raise _unusable(host, error) from error


def _facts(host: Host, settings: SharedCaches, ledger: Ledger, cancel: CancelToken) -> ShareFacts:
    waiting = 0
    for tree in _trees(host, settings) if settings.upload else ():
        waiting += sum(len(folder.names) for folder in new_in(tree, ledger, cancel))
    known = ledger.facts()
    ended = known.get("ended")
    return ShareFacts(
        url=settings.url,
        is_uploading=settings.upload,
        waiting=waiting,
        uploaded=int(known.get("uploaded", "0")),
        uploaded_bytes=int(known.get("uploaded_bytes", "0")),
        last_round=datetime.fromisoformat(ended).astimezone(UTC) if ended else None,
        last_error=known.get("error", ""),
        damaged=tuple(f"{item.cache}/{item.path}: {item.reason}" for item in ledger.refusals()),
    )


def _trees(host: Host, settings: SharedCaches) -> tuple[SharedTree, ...]:
    """Only the host's own caches, which no untrusted build can write to."""
    places = host.places
    trees = [SharedTree(SSTATE, places.sstate)]
    if settings.downloads:
        trees.append(SharedTree(DOWNLOADS, places.downloads))
    return tuple(trees)


def _unusable(host: Host, error: sqlite3.Error) -> HostError:
    return HostError(
        f"can't use the list of uploads: {error}",
        where=str(host.home.share_ledger),
        hint="It may be deleted; the next upload then asks the store for everything.",
    )
