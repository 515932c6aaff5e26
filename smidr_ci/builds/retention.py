"""`cache.retention`: what a project's builds left goes after so many days, nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from smidr_ci.artifacts.retention import clean
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.store import BuildStore
from smidr_ci.errors import SmidrError, UsageError
from smidr_ci.workspaces.model import RestingWorkspace
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["forget_workspaces", "retire"]

Report = Callable[[str], object]
"""Takes one line for the user."""


def retire(
    host: Host, workspaces: WorkspaceStore, record: BuildRecord, days: int, report: Report
) -> None:
    """Remove artifacts and kept workspaces of the record's customer and project older than `days`.

    A refusal is reported and fails nothing.
    """

    def is_anothers(build_id: str) -> bool:
        return host.store.is_owned(build_id) or not _is_akin(host.store, build_id, record)

    now = host.clock.now()
    try:
        gone = clean(
            host.artifacts_root,
            now=now,
            days=days,
            customer=record.customer,
            is_in_use=is_anothers,
        )
        old = [
            item
            for item in workspaces.list_kept()
            if item.released is not None
            and item.released < now - timedelta(days=days)
            and not is_anothers(item.build_id)
        ]
        discarded = [item for item in old if workspaces.discard(item)]
        forget_workspaces(host.store, discarded)
    except SmidrError as error:
        report(f"cache.retention: {error}")
        return
    for path in [*(item.path for item in gone), *(item.path for item in discarded)]:
        report(f"cache.retention: removed {path}")


def forget_workspaces(store: BuildStore, gone: Iterable[RestingWorkspace]) -> None:
    """Take the path of workspaces that are gone out of their builds' records."""
    for item in gone:
        with suppress(UsageError):
            store.update(item.build_id, workspace="")


def _is_akin(store: BuildStore, build_id: str, record: BuildRecord) -> bool:
    # Directory names alone do not tell: customer `a` with project `b-c` reads as `a-b` with `c`.
    try:
        other = store.get(build_id, include_deleted=True)
    except UsageError:
        return False
    whose = (build_id, record.customer, record.project)
    return (other.build_id, other.customer, other.project) == whose
