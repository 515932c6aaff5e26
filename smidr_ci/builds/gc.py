"""Garbage collection of a host's caches: over their caps, or because a disk gets short.

One process collects at a time. Builds may run meanwhile; what they may need stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from smidr_ci.builds.collectables import CACHES, collectables
from smidr_ci.builds.host import Host
from smidr_ci.builds.needs import Needs
from smidr_ci.caches.layout import FreeSpace, free_space
from smidr_ci.caches.lru import Caps, Census, Cut, Keep, Removal, Rule, cut_of, pressure_rules
from smidr_ci.cancel import CancelToken
from smidr_ci.config.caches import CacheLimits
from smidr_ci.errors import BusyError, SmidrError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.locks import KernelLock, take_lock

__all__ = [
    "CACHES",
    "Collected",
    "GcOptions",
    "hold_caches",
    "is_disk_short",
    "ready_caches",
    "run_gc",
    "wanted_bytes",
]

_LOCK: Final = "caches.lock"
_DAY_S: Final = 86_400

Report = Callable[[str], object]
"""Takes one line for the user."""
Tell = Callable[[Removal], object]
"""Takes what went, or would go; called from any thread."""


class Collectable(Protocol):
    """A cache: `FileCache` or `ItemCache`."""

    @property
    def name(self) -> str:
        """As in `CACHES`."""

    @property
    def root(self) -> Path:
        """Where it lies; tells the disk."""

    def measure(self, keep: Callable[[], Keep], now_s: float, cancel: CancelToken) -> Census:
        """What it holds."""

    def remove(
        self,
        cut: Cut,
        keep: Callable[[], Keep],
        now_s: float,
        cancel: CancelToken,
        tell: Tell | None = None,
        *,
        dry_run: bool = False,
    ) -> Census:
        """Remove what the cut takes; what that was."""


@dataclass(frozen=True)
class GcOptions:
    """What one collection does otherwise than `agent.yaml` says."""

    caches: frozenset[str] = frozenset(CACHES)
    caps: dict[str, Caps] = field(default_factory=dict)
    """By cache; a cap that is None here is the operator's."""
    keep_builds: int | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Collected:
    """What one cache lost, or would lose."""

    cache: str
    units: int
    files: int
    size_bytes: int
    problem: str = ""
    """Why the cache could not be collected."""


def run_gc(
    host: Host,
    options: GcOptions,
    cancel: CancelToken,
    report: Report = lambda _: None,
    tell: Tell | None = None,
) -> list[Collected]:
    """Collect; what each cache lost. What can't be read is said in the result.

    Raises `BusyError` when another process collects, `HostError`, `CancelledError`: what has gone
    until then is gone, and nothing is half.
    """
    limits = host.agent.cache
    keep_builds = limits.keep_builds if options.keep_builds is None else options.keep_builds
    run = _Run(host, options, Needs(host, keep_builds, report), cancel, report, tell)
    with hold_caches(host):
        chosen = [item for item in collectables(host) if item.name in options.caches]
        return [run.collect(plan) for plan in run.plans(chosen)]


def ready_caches(host: Host) -> None:
    """Make the lock's file while there is room: where no file can be made, one wants to collect."""
    with contextlib.suppress(OSError):
        path = make_private_dir(host.home.locks) / _LOCK
        if not path.exists():
            path.touch(mode=0o600)


def hold_caches(host: Host) -> KernelLock:
    """The right to remove or set aside parts of the caches; `BusyError` when another has it."""
    try:
        make_private_dir(host.home.locks)
        lock = take_lock(host.home.locks / _LOCK, host.clock)
    except OSError as error:
        raise as_host_error(error, "can't lock the caches", host.home.locks) from error
    if lock is None:
        raise BusyError(
            "another process collects or verifies the caches",
            hint="Wait for its end. It lets builds run meanwhile.",
        )
    return lock


def is_disk_short(host: Host) -> bool:
    """Whether a disk with a cache on it has less free than `cache.gc_below_free`; costs nothing."""
    disks = _disks(collectables(host)).values()
    return any(wanted_bytes(space, host.agent.cache) for space in disks)


@dataclass(frozen=True)
class _Plan:
    cache: Collectable
    census: Census
    cut: Cut
    problem: str = ""


@dataclass(frozen=True)
class _Run:
    """One collection."""

    host: Host
    options: GcOptions
    needs: Needs
    cancel: CancelToken
    report: Report
    tell: Tell | None

    @property
    def now_s(self) -> float:
        return self.host.clock.now().timestamp()

    def plans(self, caches: Sequence[Collectable]) -> list[_Plan]:
        """What goes of each cache: beyond its caps, and together for each disk that is short."""
        limits = self.host.agent.cache
        short = {
            disk: wanted
            for disk, space in _disks(caches).items()
            if (wanted := wanted_bytes(space, limits))
        }
        plans = [self._plan(cache, is_measured=_disk_of(cache.root) in short) for cache in caches]
        for disk, wanted in short.items():
            on_it = [plan.census for plan in plans if _disk_of(plan.cache.root) == disk]
            rules = self._pressure(on_it, wanted)
            plans = [
                replace(plan, cut=replace(plan.cut, rules=(*plan.cut.rules, *rules)))
                if _disk_of(plan.cache.root) == disk
                else plan
                for plan in plans
            ]
        return plans

    def _plan(self, cache: Collectable, *, is_measured: bool) -> _Plan:
        caps, now_s = _caps(self.host.agent.cache, self.options, cache.name), self.now_s
        census = Census()
        # By age alone, one pass is enough.
        if caps.max_size is not None or is_measured:
            try:
                census = cache.measure(self.needs, now_s, self.cancel)
            except (OSError, SmidrError) as error:
                self.cancel.raise_if_cancelled()
                return _Plan(cache, census, Cut(), str(error))
        return _Plan(cache, census, cut_of(census, caps, now_s))

    def _pressure(self, censuses: Sequence[Census], wanted: int) -> list[Rule]:
        removable = sum(item.size_bytes - item.kept_bytes for item in censuses)
        if removable < wanted:
            self.report(
                f"a disk is short of {wanted / 1e9:.1f} GB, and all that no build needs of its"
                f" caches is {removable / 1e9:.1f} GB"
            )
        return pressure_rules(censuses, wanted, "least recently used, and the disk is short")

    def collect(self, plan: _Plan) -> Collected:
        """Carry out one plan."""
        cache, gone, problem = plan.cache, Census(), plan.problem
        if not problem:
            try:
                gone = cache.remove(
                    plan.cut,
                    self.needs,
                    self.now_s,
                    self.cancel,
                    self.tell,
                    dry_run=self.options.dry_run,
                )
            except (OSError, SmidrError) as error:
                self.cancel.raise_if_cancelled()
                problem = str(error)
        return Collected(cache.name, gone.units, gone.files, gone.size_bytes, problem)


def wanted_bytes(space: FreeSpace, limits: CacheLimits) -> int:
    """How much must be freed on a disk; 0 while enough is free."""
    if space.free_bytes * 100 >= space.total_bytes * limits.gc_below_free:
        return 0
    return max(space.total_bytes * limits.gc_until_free // 100 - space.free_bytes, 0)


def _caps(limits: CacheLimits, options: GcOptions, name: str) -> Caps:
    key = name.replace("-", "_")
    days = getattr(limits, f"{key}_max_age")
    size = getattr(limits, f"{key}_max_size", None)
    own = options.caps.get(name, Caps())
    return Caps(
        max_size=size if own.max_size is None else own.max_size,
        max_age_s=own.max_age_s if own.max_age_s is not None else days and days * _DAY_S,
    )


def _disks(caches: Iterable[Collectable]) -> dict[int, FreeSpace]:
    found: dict[int, FreeSpace] = {}
    for cache in caches:
        disk = _disk_of(cache.root)
        if disk not in found:
            found[disk] = free_space(cache.root)
    return found


def _disk_of(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.stat(path).st_dev
