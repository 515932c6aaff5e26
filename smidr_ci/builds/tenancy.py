"""Which workspace a build has: a fresh one, or the one that a process which died left for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from smidr_ci.builds.checkpoint import Trail
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.places import Places
from smidr_ci.builds.retention import forget_workspaces
from smidr_ci.trust import Trust
from smidr_ci.workspaces.model import Budget, Workspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["Tenancy", "leased", "take_over"]


@dataclass
class Tenancy:
    """A workspace while the build has it, and whether it stays afterwards."""

    workspace: Workspace
    is_kept: bool = False


@contextlib.contextmanager
def leased(
    host: Host, store: WorkspaceStore, places: Places, journal: Journal, left: Workspace | None
) -> Iterator[Tenancy]:
    """A workspace of the build's own, or the one that was `left` for it.

    Released at the end, and the kept ones trimmed to their budget.
    """
    record = journal.record
    key = f"{record.customer}-{record.project}"
    if record.trust is Trust.UNTRUSTED:
        key = f"untrusted-{key}"[:127]
    tenancy = Tenancy(left or store.lease(key, record.build_id, places.private_roots))
    journal.note(workspace=str(tenancy.workspace.path))
    try:
        yield tenancy
    finally:
        journal.make_room()
        store.release(tenancy.workspace, keep=tenancy.is_kept)
        limits = host.agent.limits
        gone = store.sweep(Budget(limits.kept_workspaces_count, limits.kept_workspaces_size))
        forget_workspaces(host.store, gone)
        if not tenancy.is_kept or tenancy.workspace.path in {item.path for item in gone}:
            journal.note(workspace="")


def take_over(
    host: Host, store: WorkspaceStore, journal: Journal, trail: Trail
) -> Workspace | None:
    """The workspace of a build that another process drove, when it can go on in it.

    What it can't go on with is taken away, and the trail forgotten: the build starts anew.
    """
    record = journal.record
    if not record.is_resumable or record.state is BuildState.QUEUED:
        return None
    for handle in host.runtime.list_builds():
        is_helper = handle.role != "build" or trail.last is None
        if handle.build_id == record.build_id and is_helper:
            host.runtime.remove(handle)
    left = store.adopt(record.build_id)
    if trail.last is None or trail.last.final is not None:
        is_kept = trail.last is not None and trail.last.is_workspace_kept
        if left is not None:
            store.release(left, keep=is_kept)
        if not is_kept:
            journal.note(workspace="")
        return None
    if left is None:
        trail.abandon(host.runtime)
    return left
