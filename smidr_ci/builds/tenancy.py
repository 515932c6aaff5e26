"""Which workspace a build has: a fresh one, a warm one, or what a process that died left for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.checkpoint import Trail
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.leftovers import usual_workspaces
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.preparation import Preparation
from smidr_ci.builds.retention import forget_workspaces
from smidr_ci.builds.warmth import is_sound, warmth_of
from smidr_ci.errors import SmidrError, UsageError
from smidr_ci.trust import Trust
from smidr_ci.workspaces.model import Budget, Workspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["Tenancy", "clear_away", "leased", "take_over"]


@dataclass
class Tenancy:
    """A workspace while the build has it, and whether it stays afterwards."""

    workspace: Workspace
    is_kept: bool = False
    is_sound: bool = False
    """Others may go on in it."""
    has_failed: bool = False

    def settle(self, outcome: Outcome, findings: Sequence[Mapping[str, Any]]) -> None:
        """Decide whether others may go on in it, now that the build is over."""
        self.has_failed = outcome.state is not BuildState.COMPLETED
        may_be_used = bool(self.workspace.warm_key)
        self.is_sound = may_be_used and is_sound(outcome, findings, self.workspace.failures)
        self.is_kept = self.is_kept or self.is_sound


@contextlib.contextmanager
def leased(
    host: Host,
    store: WorkspaceStore,
    prepared: Preparation,
    journal: Journal,
    left: Workspace | None,
    *,
    is_anew: bool = False,
) -> Iterator[Tenancy]:
    """A workspace of the build's own, or the one that was `left` for it.

    With `is_anew` no earlier build's. Released at the end, and the kept ones trimmed to their
    budgets.
    """
    workspace = left or _lease(host, store, prepared, journal.record, is_anew=is_anew)
    tenancy = Tenancy(workspace)
    journal.note(workspace=str(workspace.path), warm_from=workspace.after)
    try:
        yield tenancy
    finally:
        journal.make_room()
        store.release(
            workspace,
            keep=tenancy.is_kept,
            is_reusable=tenancy.is_sound,
            has_failed=tenancy.has_failed,
            is_unchanged=_is_unchanged(journal.record),
        )
        gone = store.sweep(*_budgets(host))
        forget_workspaces(host.store, gone)
        if not tenancy.is_kept or workspace.path in {item.path for item in gone}:
            journal.note(workspace="")


def _lease(
    host: Host, store: WorkspaceStore, prepared: Preparation, record: BuildRecord, *, is_anew: bool
) -> Workspace:
    key = f"{record.customer}-{record.project}"
    if record.trust is Trust.UNTRUSTED:
        key = f"untrusted-{key}"[:127]
    warmth = warmth_of(host, prepared)
    if warmth.key and not warmth.starts_fresh and not is_anew:

        def forget(build_id: str) -> None:
            with contextlib.suppress(UsageError):
                host.store.update(build_id, workspace="")

        found = store.lease_warm(key, record.build_id, warmth.key, forget)
        if found is not None:
            return found
    return store.lease(key, record.build_id, prepared.places.private_roots, warm_key=warmth.key)


def _budgets(host: Host) -> tuple[Budget, Budget]:
    limits, warm = host.agent.limits, host.agent.workspaces
    return (
        Budget(limits.kept_workspaces_count, limits.kept_workspaces_size),
        Budget(warm.max_count, warm.max_size),
    )


def _is_unchanged(record: BuildRecord) -> bool:
    counts = [record.tasks.get(name) for name in ("executed", "from_sstate", "failed")]
    return counts == [0, 0, 0]


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
        is_sound = trail.last is not None and trail.last.is_workspace_sound
        if left is not None:
            has_failed = trail.last is not None and trail.last.has_failed
            store.release(left, keep=is_kept, is_reusable=is_sound, has_failed=has_failed)
        if not is_kept:
            journal.note(workspace="")
    elif left is not None:
        return left
    else:
        trail.remove_container(host.runtime)
        trail.forget()
    if trail.last is None:
        _forget_log(host, record.build_id)
    return None


def _forget_log(host: Host, build_id: str) -> None:
    """What BitBake said and did it will say and do again."""
    control = host.control_of(build_id)
    for name in ("console", "events"):
        (control / CONTROL_FILES[name]).unlink(missing_ok=True)


def clear_away(host: Host, record: BuildRecord, journal: Journal, trail: Trail) -> None:
    """Take away what another process left of a build (as `record` was then) that did not use it.

    Trouble is left for the next look at leftovers.
    """
    if not record.is_resumable or record.state is BuildState.QUEUED:
        return
    with contextlib.suppress(SmidrError):
        if trail.is_resumed:
            trail.remove_container(host.runtime)
        store = host.workspace_store(trail.last.places) if trail.last else usual_workspaces(host)
        left = store.adopt(record.build_id)
        if left is not None:
            store.release(left, keep=False)
            journal.note(workspace="")
