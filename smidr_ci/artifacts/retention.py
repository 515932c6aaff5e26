"""Which artifacts go, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

from smidr_ci.artifacts.shelf import ArtifactSet, list_artifacts
from smidr_ci.artifacts.whole import COLLECTING_PREFIX
from smidr_ci.errors import InternalError, UsageError
from smidr_ci.files import DELETING_PREFIX, as_host_error, make_marked_dir, remove_marked_tree

__all__ = ["Removed", "clean"]

_ABANDONED_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True)
class Removed:
    """One directory that went, or would go."""

    path: Path
    reason: str
    size_bytes: int


def clean(
    root: Path,
    *,
    now: datetime,
    keep: int | None = None,
    days: int | None = None,
    customer: str | None = None,
    dry_run: bool = False,
    is_in_use: Callable[[str], bool] = lambda _: False,
) -> list[Removed]:
    """Remove the artifacts of old builds; return which, oldest first per customer.

    The newest `keep` builds of each customer always stay; of the others those go that are older
    than `days`, or all when `days` is None. `is_in_use` tells the ids of builds that still run;
    theirs stay. What a crash left half-done goes after a day.
    """
    if keep is None and days is None:
        raise UsageError("clean needs a limit", hint="Give --keep, --days or both.")
    if min(keep or 0, days or 0) < 0:
        raise UsageError("--keep and --days can't be negative")
    doomed = _half_done(root, customer, now)
    by_customer = groupby(
        sorted(list_artifacts(root, customer), key=lambda item: item.customer),
        key=lambda item: item.customer,
    )
    for _, newest_first in by_customer:
        candidates = [*newest_first][keep or 0 :]
        doomed += [
            Removed(item.path, reason, item.manifest.total_bytes if item.manifest else 0)
            for item in reversed(candidates)
            if (reason := _reason(item, now, keep, days)) and not is_in_use(item.build_id)
        ]
    if not dry_run:
        for item in doomed:
            _remove(item.path, root)
    return doomed


def _reason(item: ArtifactSet, now: datetime, keep: int | None, days: int | None) -> str:
    beyond = f"not among the newest {keep} of {item.customer}" if keep else ""
    if days is None:
        return beyond or "none are to be kept"
    if item.manifest is None:
        age = now - datetime.fromtimestamp(item.path.stat().st_mtime, now.tzinfo)
    else:
        age = now - item.manifest.created
    if age <= timedelta(days=days):
        return ""
    return ", ".join(part for part in (f"{age.days} days old", beyond) if part)


def _half_done(root: Path, customer: str | None, now: datetime) -> list[Removed]:
    latest = (now - _ABANDONED_AFTER).timestamp()
    found = []
    for prefix in (COLLECTING_PREFIX, DELETING_PREFIX):
        for path in sorted(root.glob(f"*/{prefix}*")):
            if customer not in {None, path.parent.name}:
                continue
            with contextlib.suppress(OSError):
                if path.stat(follow_symlinks=False).st_mtime < latest:
                    found.append(Removed(path, "left half-done by a crash", 0))
    return found


def _remove(path: Path, root: Path) -> None:
    try:
        if path.name.startswith((COLLECTING_PREFIX, DELETING_PREFIX)) and not path.is_symlink():
            make_marked_dir(path)  # a removal that was cut short may have taken the marker
        remove_marked_tree(path, root)
    except InternalError as error:
        raise UsageError(f"{path} was not removed: {error.message}") from error
    except OSError as error:
        raise as_host_error(error, "can't remove artifacts", path) from error
