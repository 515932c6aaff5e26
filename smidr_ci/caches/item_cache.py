"""Caches of few big things, such as layer trees: listed whole, and each removed by its owner."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.caches.lru import Census, Cut, Keep, Removal
from smidr_ci.caches.unit import Unit, measure_tree
from smidr_ci.caches.walk import opened
from smidr_ci.cancel import CancelToken
from smidr_ci.files import MARKER_NAME, remove_marked_tree

__all__ = ["Item", "ItemCache", "marked_folders", "tree_size"]


@dataclass(frozen=True)
class Item:
    """One thing; `remove` says whether it is gone, and is not called while a build needs it."""

    path: str
    use_s: int
    size_bytes: int
    remove: Callable[[], bool]
    may_go: bool = True


@dataclass(frozen=True)
class ItemCache:
    """The things of one kind; `list_items` looks anew each time."""

    name: str
    root: Path
    list_items: Callable[[CancelToken], Sequence[Item]]

    def measure(self, keep: Callable[[], Keep], now_s: float, cancel: CancelToken) -> Census:  # noqa: ARG002 - as `FileCache`
        """Count all things."""
        found, kept = Census(), keep()
        for item in self.list_items(cancel):
            may_go = item.may_go and item.use_s < kept.since_s
            found.add(item.use_s, item.size_bytes, 1, may_go=may_go)
        return found

    def remove(
        self,
        cut: Cut,
        keep: Callable[[], Keep],
        now_s: float,  # noqa: ARG002 - as `FileCache`
        cancel: CancelToken,
        tell: Callable[[Removal], object] | None = None,
        *,
        dry_run: bool = False,
    ) -> Census:
        """Remove what the cut takes and nobody needs, the oldest first; count that."""
        gone = Census()
        for item in sorted(self.list_items(cancel), key=lambda item: item.use_s):
            cancel.raise_if_cancelled()
            if not item.may_go or item.use_s >= keep().since_s:
                continue
            reason = cut.reason(item.use_s, item.size_bytes)
            if not reason or not (dry_run or item.remove()):
                continue
            gone.add(item.use_s, item.size_bytes, 1, may_go=False)
            if tell is not None:
                tell(Removal(self.name, item.path, item.size_bytes, item.use_s, reason))
        return gone


def tree_size(path: Path, cancel: CancelToken) -> int:
    """Bytes on disk of all below a folder; 0 when it is gone."""
    unit = Unit(path.name, folder=path.name)
    with contextlib.suppress(OSError), opened(path.parent) as fd:
        measure_tree(fd, unit, int(time.time()), cancel)
    return unit.size_bytes


def marked_folders(
    root: Path, cancel: CancelToken, remove: Callable[[Path, Path], bool] | None = None
) -> Iterator[Item]:
    """Folders of ours right below a root; their time is touched when they are used.

    `remove` is called with a folder and the root, and says whether the folder is gone.
    """
    try:
        with os.scandir(root) as entries:
            found = [Path(item.path) for item in entries if item.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            if (path / MARKER_NAME).is_file() and not path.name.startswith("."):
                use_s = int(path.stat().st_mtime)
                gone = functools.partial(remove or _remove, path, root)
                yield Item(str(path), use_s, tree_size(path, cancel), gone)


def _remove(path: Path, root: Path) -> bool:
    try:
        remove_marked_tree(path, root)
    except OSError:
        return False
    return True
