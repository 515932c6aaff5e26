"""What running and queued builds may need of the caches: that stays, whatever the caps say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.uses import used_hashes
from smidr_ci.caches.lru import Keep
from smidr_ci.trust import Trust

__all__ = ["Needs", "active_builds"]

_SLACK_S: Final = 120.0
"""Clocks of hosts that share a cache differ, and a build begins a little before it says so."""
_FRESH_FOR_S: Final = 2.0
_LOOKED_AT: Final = 2000
_UNFINISHED: Final = tuple(state for state in BuildState if not state.is_final)


def active_builds(host: Host) -> list[BuildRecord]:
    """Builds that are not over, newest first; summaries."""
    return host.store.list(limit=100_000, state=_UNFINISHED, include_deleted=True)


@dataclass
class Needs:
    """Asks history what must stay, at most every two seconds; call it as often as you like.

    Of a build that is not over, all it has used since it began stays, and what the last completed
    build of its customer and project used: it is about to want the same. `keep_builds` adds what
    so many of the newest completed builds of every project used. Where it was not noted what a
    build used, all stays that was used since it began: an object carries only its last use.
    """

    host: Host
    keep_builds: int = 0
    report: Callable[[str], object] = lambda _: None
    _keep: Keep | None = None
    _asked: float = 0.0
    _used: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def __call__(self) -> Keep:
        """What must stay, as of now."""
        now = self.host.clock.monotonic()
        if self._keep is None or now - self._asked >= _FRESH_FOR_S:
            self._keep, self._asked = self._look(), now
        return self._keep

    def _look(self) -> Keep:
        active = active_builds(self.host)
        since = [_begun(record) for record in active]
        hashes: set[str] = set()
        for record in self._wanted(active):
            used = self._uses_of(record)
            if used is None:
                since.append(_begun(record))
            else:
                hashes |= used
        first = min((moment.timestamp() for moment in since), default=float("inf"))
        return Keep(first - _SLACK_S, frozenset(hashes), is_quiet=not active)

    def _wanted(self, active: list[BuildRecord]) -> list[BuildRecord]:
        projects = {(record.customer, record.project) for record in active}
        counts: dict[tuple[str, str], int] = {}
        wanted = []
        if not projects and not self.keep_builds:
            return []
        for record in self.host.store.list(limit=_LOOKED_AT, state=BuildState.COMPLETED):
            if record.trust is Trust.UNTRUSTED:
                continue  # it made nothing that is here, and could name what it likes
            key = (record.customer, record.project)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] <= max(self.keep_builds, key in projects):
                wanted.append(record)
        return wanted

    def _uses_of(self, record: BuildRecord) -> frozenset[str] | None:
        if record.build_id not in self._used:
            self._used[record.build_id] = used_hashes(self.host, record)
            if self._used[record.build_id] is None:
                self.report(
                    f"it was not noted what build {record.build_id} of {record.project} used:"
                    " all stays that was used since it began"
                )
        return self._used[record.build_id]


def _begun(record: BuildRecord) -> datetime:
    return record.started or record.created
