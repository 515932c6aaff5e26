"""Directories of jobs that wait for the next job of the same project; too old ones go."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from smidr_ci.errors import SmidrError
from smidr_ci.files import DELETING_PREFIX, MARKER_NAME, remove_marked_tree
from smidr_ci.home import Home

__all__ = ["remove_old_checkouts"]

log = logging.getLogger(__name__)


def remove_old_checkouts(home: Home, days: int, now: datetime) -> int:
    """Remove the checkouts that no job used for so many days; how many went."""
    root, removed = home.root / "checkouts", 0
    limit = (now - timedelta(days=days)).timestamp()
    for path in sorted(root.glob("*")):
        is_left = path.name.startswith(DELETING_PREFIX)
        if not is_left and (_used(path) > limit or path in set(_in_use(home))):
            continue
        try:
            remove_marked_tree(path, root)
            removed += 1
        except (OSError, SmidrError) as error:
            log.warning("can't remove %s: %s", path, error)
    return removed


def _used(path: Path) -> float:
    try:
        return (path / MARKER_NAME).stat().st_mtime
    except OSError:
        return 0.0


def _in_use(home: Home) -> Iterator[Path]:
    for state in (home.root / "jobs").glob("*/state.json"):
        try:
            yield Path(json.loads(state.read_bytes()).get("directory", ""))
        except (OSError, ValueError, AttributeError, TypeError):
            continue
