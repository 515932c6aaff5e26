"""Takes builds out of the queue that would come to the same as one that begins."""

from __future__ import annotations

from collections.abc import Iterable

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.likeness import contents_of, likeness_of
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import order_of
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.shared_runs import is_run
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError

__all__ = ["likeness_for", "take_alike"]


def likeness_for(host: Host, record: BuildRecord, request: BuildRequest | None) -> str:
    """See `likeness_of`; empty for a build that has begun, or is a run for others."""
    if record.state is not BuildState.QUEUED or record.shared_run or is_run(record):
        return ""
    try:
        request = request or request_for(host, order_of(record))
    except SmidrError:
        return ""  # the build itself will say what is wrong
    return likeness_of(host, request, record.targets)


def take_alike(
    host: Host,
    scheduler: Scheduler,
    record: BuildRecord,
    ordered_alike: Iterable[str],
    cancel: CancelToken,
) -> list[str]:
    """Those of the waiting builds with the same `likeness_of` that also have the same contents.

    They wait no more. Raises `SmidrError`; then all still wait.
    """
    candidates = list(ordered_alike)
    contents = _contents(host, record, cancel) if candidates else ""
    if not contents:
        return []
    same = [
        build_id
        for build_id in candidates
        if _contents(host, host.store.get(build_id, include_deleted=True), cancel) == contents
    ]
    return [build_id for build_id in same if scheduler.drop(build_id)]


def _contents(host: Host, record: BuildRecord, cancel: CancelToken) -> str:
    try:
        request = request_for(host, order_of(record))
    except SmidrError:
        return ""
    return contents_of(host, request, cancel)
