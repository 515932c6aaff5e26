"""Builds as the store has them, when no agent runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.logbook import LogReader, follow
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.reconcile import mark_interrupted_builds

__all__ = ["StoredBuilds"]


@dataclass(frozen=True)
class StoredBuilds:
    """A `Source`; builds whose process died are marked as interrupted when it is opened."""

    host: Host

    @classmethod
    def open(cls) -> StoredBuilds:
        """The store of the home that the environment names."""
        host = Host.open()
        mark_interrupted_builds(host.store)
        return cls(host)

    def get(self, build_id: str) -> BuildRecord:
        """One build, whole."""
        return self.host.store.get(build_id)

    def list(
        self, *, limit: int, state: BuildState | None = None, customer: str | None = None
    ) -> list[BuildRecord]:
        """Summaries, newest first."""
        return self.host.store.list(limit=limit, state=state, customer=customer)

    def logs(self, build_id: str, *, tail: int | None, follow: bool) -> Iterator[tuple[int, bytes]]:
        """Chunks of the console; following ends when nobody drives the build any more."""
        store, path = self.host.store, self.host.control_of(build_id) / CONTROL_FILES["console"]
        offset = 0
        if tail is not None:
            with LogReader(path) as reader:
                offset, _ = reader.tail(tail)

        def is_finished() -> bool:
            return store.get(build_id).state.is_final or not store.is_owned(build_id)

        return _follow(path, offset, is_finished if follow else lambda: True, self.host.clock.sleep)

    def waiting_for(self, record: BuildRecord) -> str:
        """An agent's build that is not over waits for its agent."""
        is_waiting = record.is_resumable and not self.host.store.is_owned(record.build_id)
        if record.state.is_final or not is_waiting:
            return ""
        return "no agent runs; `smidr daemon` goes on with this build"


_follow = follow
