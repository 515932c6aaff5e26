"""History stays within the operator's limits: old builds are hidden first, and removed later.

Files go before records: what a crash interrupts is done the next time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.remains import Remains
from smidr_ci.builds.store import BuildStore
from smidr_ci.config.limits import History
from smidr_ci.errors import SmidrError

__all__ = ["Trimmed", "purge_hidden", "trim_history"]

_PAGE: Final = 500
_BATCH: Final = 100


@dataclass(frozen=True)
class Trimmed:
    """What was done to one build, and why."""

    build_id: str
    action: Literal["hidden", "purged", "refused"]
    """`refused`: it could not be removed, and stays hidden."""
    reason: str


@dataclass(frozen=True)
class _Old:
    """As much of a build as a decision needs."""

    build_id: str
    age: timedelta
    is_safe: bool
    """It stays whatever the limits say."""
    size_bytes: int


def trim_history(
    store: BuildStore,
    settings: History,
    now: datetime,
    remains: Remains,
    is_needed: Callable[[str], bool] = lambda _: False,
) -> tuple[Trimmed, ...]:
    """Hide the oldest builds beyond the limits, and purge what was hidden long enough.

    A build that runs stays, and so do the newest of each project and what `is_needed` says is in
    use. For once a day and after builds: it takes a few system calls per build. Raises `HostError`
    when the database can't be used.
    """
    hidden = [
        Trimmed(build_id, "hidden", reason)
        for build_id, reason in _beyond_limits(store, settings, now, remains, is_needed)
        if _hide(store, build_id)
    ]
    before = now - timedelta(days=settings.purge_after_days)
    purged = purge_hidden(store, remains, before, is_needed)
    remains.sweep(now)
    return (*hidden, *purged)


def purge_hidden(
    store: BuildStore,
    remains: Remains,
    before: datetime,
    is_needed: Callable[[str], bool] = lambda _: False,
) -> tuple[Trimmed, ...]:
    """Remove builds that were hidden before a time, with logs and artifacts, for good."""
    done: list[Trimmed] = []
    doomed = [
        item for item in store.hidden(before) if not (store.is_owned(item) or is_needed(item))
    ]
    for begin in range(0, len(doomed), _BATCH):
        batch = [_remove(remains, item, before) for item in doomed[begin : begin + _BATCH]]
        removed = {item.build_id for item in batch if item.action == "purged"}
        store.purge(before, among=removed)
        done += batch
    return tuple(done)


def _remove(remains: Remains, build_id: str, before: datetime) -> Trimmed:
    try:
        remains.remove(build_id)
    except SmidrError as error:
        return Trimmed(build_id, "refused", str(error))
    return Trimmed(build_id, "purged", f"hidden before {before:%Y-%m-%d %H:%M} UTC")


def _hide(store: BuildStore, build_id: str) -> bool:
    try:
        store.soft_delete(build_id)
    except SmidrError:
        return False  # somebody purged it meanwhile
    return True


def _beyond_limits(
    store: BuildStore,
    settings: History,
    now: datetime,
    remains: Remains,
    is_needed: Callable[[str], bool],
) -> Iterator[tuple[str, str]]:
    """Ids of builds that must go, the oldest first, each with the limit that it is beyond."""
    known = list(_newest_first(store, settings, now, remains))
    count, size = len(known), sum(item.size_bytes for item in known)
    for item in reversed(known):
        if settings.max_days is not None and item.age > timedelta(days=settings.max_days):
            reason = f"{item.age.days} days old, of {settings.max_days} at most"
        elif count > settings.max_builds:
            reason = f"the oldest of {count} builds, of {settings.max_builds} at most"
        elif size > settings.max_size:
            reason = f"logs and artifacts have {size} bytes, of {settings.max_size} at most"
        else:
            continue
        if not item.is_safe and not is_needed(item.build_id):
            count, size = count - 1, size - item.size_bytes
            yield item.build_id, reason


def _newest_first(
    store: BuildStore, settings: History, now: datetime, remains: Remains
) -> Iterator[_Old]:
    seen, completed = Counter[tuple[str, str]](), set[tuple[str, str]]()
    for record in _all(store):
        project = (record.customer, record.project)
        seen[project] += 1
        is_safe = seen[project] <= settings.keep_newest
        if record.state is BuildState.COMPLETED and project not in completed:
            completed.add(project)
            is_safe = True
        is_safe = is_safe or not record.state.is_final or store.is_owned(record.build_id)
        age = now - (record.ended or record.created)
        yield _Old(record.build_id, age, is_safe, remains.size_of(record.build_id))


def _all(store: BuildStore) -> Iterator[BuildRecord]:
    page = store.list(limit=_PAGE)
    while page:
        yield from page
        page = store.list(limit=_PAGE, before=page[-1].build_id)
