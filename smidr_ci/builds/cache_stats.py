"""What the caches hold, what they are worth, and how full their disks are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from smidr_ci.builds.collectables import collectables
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.recipes import RecipeFacts, RecipeStore
from smidr_ci.caches.index import CacheIndex, Totals
from smidr_ci.caches.item_cache import ItemCache
from smidr_ci.caches.layout import free_space
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError

__all__ = ["CacheFacts", "CacheStats", "Reuse", "cache_stats", "index_of", "reuse_of"]

_INDEX: Final = "cache-index.db"
_RECORDS: Final = 500


@dataclass(frozen=True)
class CacheFacts:
    """One cache; sizes are on disk, as is `free_bytes` of the disk it lies on."""

    name: str
    path: str
    files: int
    """Files, or things where the cache has few big ones."""
    objects: int | None
    """sstate objects, or downloads; None for other caches."""
    size_bytes: int
    oldest_use: datetime | None
    newest_use: datetime | None
    max_size: int | None
    max_age_days: float | None
    free_bytes: int
    disk_bytes: int
    looked: datetime | None = None
    """What is known of uses is at least as new as this."""


@dataclass(frozen=True)
class Reuse:
    """What the newest builds of one project took from sstate instead of building it."""

    customer: str
    project: str
    builds: int
    """Builds that say something of it."""
    wanted: int
    found: int
    """Of the wanted objects, those in sstate or a mirror of it."""
    tasks: int
    executed: int
    last_percent: int
    """Found of wanted in the newest build."""
    shortest_s: float
    """Wall time of the builds that found all, at least; 0 when there was none."""
    longest_s: float
    executed_s: float
    """Time of the tasks that ran, as if one after the other."""
    spared_s: float
    """Estimate of what those would have taken that sstate spared; see `model.Work`."""
    restored: int
    timed: int
    restored_bytes: int


@dataclass(frozen=True)
class CacheStats:
    """All of `smidr cache stats`."""

    caches: tuple[CacheFacts, ...]
    reuse: tuple[Reuse, ...]
    recipes: tuple[RecipeFacts, ...] = ()
    """Those on which most time was spent or spared."""


def index_of(host: Host) -> CacheIndex:
    """The index of the host's caches."""
    return CacheIndex(host.home.root / _INDEX)


def cache_stats(
    host: Host,
    *,
    full: bool = False,
    last: int = 20,
    recipes: int = 10,
    cancel: CancelToken | None = None,
) -> CacheStats:
    """Sizes from the index, brought up to date; `full` looks at every file, for its last use.

    Reuse over the `last` builds of each project, and so many `recipes`. Raises `OSError`,
    `HostError`, `CancelledError`.
    """
    token = cancel or CancelToken()
    places, index = host.places, index_of(host)
    trees = {
        "sstate": places.sstate,
        "downloads": places.downloads,
        "logs": host.home.builds,
        "artifacts": host.artifacts_root,
    }
    facts = [
        _of_totals(host, name, path, index.refresh(name, path, token, full=full))
        for name, path in trees.items()
    ]
    items = [item for item in collectables(host) if isinstance(item, ItemCache)]
    facts[2:2] = [_of_items(host, item, token) for item in items]
    facts.append(_private(host))
    records = host.store.list(limit=_RECORDS, state=BuildState.COMPLETED)
    known = RecipeStore(host.store.database).costliest(recipes)
    return CacheStats(tuple(facts), tuple(reuse_of(records, last)), tuple(known))


def reuse_of(newest_first: Iterable[BuildRecord], last: int) -> list[Reuse]:
    """Per project, over its `last` newest completed builds that had sstate to ask."""
    groups: dict[tuple[str, str], list[BuildRecord]] = {}
    runs: set[str] = set()
    for record in newest_first:
        if record.shared_run in runs:
            continue  # it was built once
        runs |= {record.shared_run} - {""}
        group = groups.setdefault((record.customer, record.project), [])
        if record.sstate is not None and len(group) < last:
            group.append(record)
    return [_reuse(*key, group) for key, group in sorted(groups.items()) if group]


def _reuse(customer: str, project: str, records: list[BuildRecord]) -> Reuse:
    sums = [record.sstate for record in records if record.sstate is not None]
    seconds = [
        (record.ended - record.started).total_seconds()
        for record in records
        if record.ended is not None and record.started is not None
    ]
    newest, works = sums[0], [record.work for record in records if record.work is not None]
    return Reuse(
        customer=customer,
        project=project,
        builds=len(records),
        wanted=sum(item.wanted for item in sums),
        found=sum(item.local + item.mirrors for item in sums),
        tasks=sum(record.tasks.get("total", 0) for record in records),
        executed=sum(record.tasks.get("executed", 0) for record in records),
        last_percent=100 * (newest.local + newest.mirrors) // max(newest.wanted, 1),
        shortest_s=min(seconds, default=0.0),
        longest_s=max(seconds, default=0.0),
        executed_s=sum(item.executed_s for item in works),
        spared_s=sum(item.spared_s for item in works),
        restored=sum(item.restored for item in works),
        timed=sum(item.timed for item in works),
        restored_bytes=sum(item.restored_bytes for item in works),
    )


def _private(host: Host) -> CacheFacts:
    """What is kept of untrusted builds' own caches, one per pull request."""
    kept = host.kept_caches.known()
    uses = [int(item.use_s) for item in kept]
    facts = _facts(
        host,
        "private",
        host.home.private_caches,
        files=len(kept),
        objects=None,
        size_bytes=sum(item.size_bytes for item in kept),
        uses=(min(uses, default=0), max(uses, default=0)),
        looked_s=0.0,
    )
    return replace(facts, max_size=host.agent.trust.private_cache_size)


def _of_totals(host: Host, name: str, path: Path, totals: Totals) -> CacheFacts:
    return _facts(
        host,
        name,
        path,
        files=totals.files,
        objects=totals.objects if name in {"sstate", "downloads"} else None,
        size_bytes=totals.size_bytes,
        uses=(totals.oldest_use_s, totals.newest_use_s),
        looked_s=totals.looked_s,
    )


def _of_items(host: Host, cache: ItemCache, cancel: CancelToken) -> CacheFacts:
    try:
        items = cache.list_items(cancel)
    except (OSError, SmidrError):
        items = ()
    uses = [item.use_s for item in items]
    return _facts(
        host,
        cache.name,
        cache.root,
        files=len(items),
        objects=None,
        size_bytes=sum(item.size_bytes for item in items),
        uses=(min(uses, default=0), max(uses, default=0)),
        looked_s=0.0,
    )


def _facts(
    host: Host,
    name: str,
    path: Path,
    *,
    files: int,
    objects: int | None,
    size_bytes: int,
    uses: tuple[int, int],
    looked_s: float,
) -> CacheFacts:
    space, key = free_space(path), name.replace("-", "_")
    limits = host.agent.cache
    return CacheFacts(
        name=name,
        path=str(path),
        files=files,
        objects=objects,
        size_bytes=size_bytes,
        oldest_use=_moment(uses[0]),
        newest_use=_moment(uses[1]),
        max_size=getattr(limits, f"{key}_max_size", None),
        max_age_days=getattr(limits, f"{key}_max_age", None),
        free_bytes=space.free_bytes,
        disk_bytes=space.total_bytes,
        looked=_moment(looked_s),
    )


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
