"""Which builds that wait would come to the same as one that begins."""

from __future__ import annotations

from collections.abc import Iterable

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.likeness import contents_of, likeness_of
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import order_of
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.shared_runs import is_run
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError

__all__ = ["alike", "likeness_for"]


def likeness_for(host: Host, record: BuildRecord, request: BuildRequest | None) -> str:
    """See `likeness_of`; empty for a build that has begun, or is a run for others."""
    if record.state is not BuildState.QUEUED or record.shared_run or is_run(record):
        return ""
    try:
        request = request or request_for(host, order_of(record))
    except SmidrError:
        return ""  # the build itself will say what is wrong
    return likeness_of(host, request, record.targets)


def alike(
    host: Host, record: BuildRecord, ordered_alike: Iterable[str], cancel: CancelToken
) -> list[str]:
    """Those of the builds with the same `likeness_of` that also have the same contents.

    None when the build itself is cancelled. Raises `SmidrError` when the store can't be read.
    """
    contents = "" if cancel.is_cancelled else _contents(host, record, cancel)
    if not contents:
        return []
    return [
        build_id
        for build_id in ordered_alike
        if _contents(host, host.store.get(build_id, include_deleted=True), cancel) == contents
    ]


def _contents(host: Host, record: BuildRecord, cancel: CancelToken) -> str:
    try:
        request = request_for(host, order_of(record))
    except SmidrError:
        return ""
    return contents_of(host, request, cancel)
