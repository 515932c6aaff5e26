"""What goes, by last use: caps become cuts, a cut says of each unit whether and why.

A unit is what can only go as a whole. Of a cache with millions only one number per unit is held.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

__all__ = ["Caps", "Census", "Cut", "Keep", "Removal", "Rule", "cut_of", "pressure_rules"]

_BLOCK: Final = 512
_SIZE_BITS: Final = 32
_SIZE_MASK: Final = (1 << _SIZE_BITS) - 1


@dataclass(frozen=True)
class Caps:
    """How big a cache may be, and for how long something may lie unused; None is no limit."""

    max_size: int | None = None
    """Bytes on disk."""
    max_age_s: float | None = None


@dataclass(frozen=True)
class Keep:
    """What builds may need and what therefore stays, whatever the caps say."""

    since_s: float = float("inf")
    """All that was used at this time (seconds since 1970) or later."""
    hashes: frozenset[str] = frozenset()
    """sstate objects with these hashes."""
    is_quiet: bool = True
    """No build is running: empty folders may go."""


@dataclass(frozen=True)
class Removal:
    """One unit that went, or would go."""

    cache: str
    path: str
    """Relative to the cache's root; a label for what is no file."""
    size_bytes: int
    last_use_s: int
    reason: str


@dataclass
class Census:
    """What a cache holds."""

    files: int = 0
    units: int = 0
    size_bytes: int = 0
    kept_bytes: int = 0
    """Of these, what builds may need."""
    removable: array[int] = field(default_factory=lambda: array("q"))
    """Last use in seconds and size in blocks of each unit that may go, packed: 8 bytes each."""
    oldest: dict[str, int] = field(default_factory=dict)
    """Folder without inner ones -> the earliest last use of what may go of it."""

    def add(self, use_s: int, size_bytes: int, files: int, *, may_go: bool) -> None:
        """Count one unit."""
        self.files += files
        self.units += 1
        self.size_bytes += size_bytes
        if may_go:
            blocks = min(-(-size_bytes // _BLOCK), _SIZE_MASK)
            self.removable.append(use_s << _SIZE_BITS | blocks)
        else:
            self.kept_bytes += size_bytes

    def merge(self, other: Census) -> None:
        """Count what another part of the cache holds."""
        self.files += other.files
        self.units += other.units
        self.size_bytes += other.size_bytes
        self.kept_bytes += other.kept_bytes
        self.removable.extend(other.removable)
        self.oldest.update(other.oldest)


@dataclass
class Rule:
    """Take all that was last used before a second, and of those used in it so many bytes."""

    before_s: int
    reason: str
    bytes_at: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def takes(self, use_s: int, size_bytes: int) -> bool:
        """Whether the unit goes; what is taken from the second itself is counted."""
        if use_s != self.before_s:
            return use_s < self.before_s
        with self._lock:
            if self.bytes_at <= 0:
                return False
            self.bytes_at -= max(size_bytes, 1)
            return True


@dataclass(frozen=True)
class Cut:
    """The rules of one cache; the first that takes a unit is the reason."""

    rules: Sequence[Rule] = ()
    oldest: Mapping[str, int] = field(default_factory=dict)
    """As in `Census`; folders that are not in it must be looked into."""

    def spares(self, folder: str) -> bool:
        """Whether nothing in the folder is old enough to go; uses only get younger."""
        found = self.oldest.get(folder)
        return found is not None and found > max((rule.before_s for rule in self.rules), default=0)

    def reason(self, use_s: int, size_bytes: int) -> str:
        """Why the unit goes; empty when it stays."""
        return next((rule.reason for rule in self.rules if rule.takes(use_s, size_bytes)), "")


def cut_of(census: Census, caps: Caps, now_s: float) -> Cut:
    """The cut that brings a cache below its caps, as far as builds leave it."""
    rules = []
    if caps.max_age_s is not None:
        text = f"not used since {_day(now_s - caps.max_age_s)}"
        rules.append(Rule(int(now_s - caps.max_age_s), text))
    if caps.max_size is not None and census.size_bytes > caps.max_size:
        reason = f"least recently used, and the cache is over its {_size(caps.max_size)}"
        rules += _rule_for([census], census.size_bytes - caps.max_size, reason)
    return Cut(tuple(rules), census.oldest)


def pressure_rules(censuses: Iterable[Census], wanted_bytes: int, reason: str) -> list[Rule]:
    """One rule for all caches of a disk, that frees so much of what was used least recently."""
    return _rule_for(list(censuses), wanted_bytes, reason) if wanted_bytes > 0 else []


def _rule_for(censuses: Sequence[Census], wanted_bytes: int, reason: str) -> list[Rule]:
    # Sorted packed numbers: by use, then by size.
    packed = array("q")
    for census in censuses:
        packed.extend(census.removable)
    freed, at, second = 0, 0, -1
    for item in sorted(packed):
        use_s = item >> _SIZE_BITS
        if use_s != second:
            if freed >= wanted_bytes:
                break
            second, at = use_s, wanted_bytes - freed
        freed += (item & _SIZE_MASK) * _BLOCK
    return [Rule(second, reason, at)] if packed else []


def _day(moment_s: float) -> str:
    return datetime.fromtimestamp(max(moment_s, 0), UTC).strftime("%Y-%m-%d")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
