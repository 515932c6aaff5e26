"""After a crash: builds whose process died are marked as interrupted."""

from __future__ import annotations

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.store import BuildStore
from smidr_ci.errors import UsageError

__all__ = ["mark_interrupted_builds"]


def mark_interrupted_builds(store: BuildStore) -> list[BuildRecord]:
    """Let every build that nobody drives any more end as `interrupted`; return those builds.

    An agent's builds wait for the next agent. Containers may still run: `smidr doctor` finds them.
    """
    marked = []
    for orphan in store.find_orphans():
        if orphan.is_resumable:
            continue
        try:
            marked.append(store.mark_interrupted(orphan.build_id))
        except UsageError:
            continue  # another process has just taken it
    return marked
