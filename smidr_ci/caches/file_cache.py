"""sstate and downloads as caches that can be counted and cut, while builds write to them.

Two passes, so that a million files cost eight bytes each: the first counts, the second looks again
and deletes at once. What a build touches in between is younger than the cut and stays.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.caches.lru import Census, Cut, Keep, Removal
from smidr_ci.caches.unit import Unit, delete_unit, fetch_lock, grouped, measure_tree
from smidr_ci.caches.units import DAMAGED, SstateName, is_half_written
from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, idle_priority, open_folder, opened
from smidr_ci.cancel import CancelToken
from smidr_ci.files import DELETING_PREFIX

__all__ = ["FileCache", "downloads_cache", "sstate_cache"]

Tell = Callable[[Removal], object]
Watch = Callable[[], Keep]

_DELETERS: Final = 3
_HALF_WRITTEN_AFTER_S: Final = 24 * 3600
_DAMAGED_AFTER_S: Final = 14 * 24 * 3600
_OWN: Final = frozenset({"CACHEDIR.TAG"})
_OBJECT_SUFFIXES: Final = (".tar.zst", ".tgz")
# Where BitBake's fetchers keep what they fetch in folders (bb/fetch2/*.py).
_OF_FETCHERS: Final = frozenset(
    {"git", "git2", "svn", "hg", "bzr", "cvs", "p4", "repo", "osc", "ccrc", DAMAGED}
)


@dataclass(frozen=True)
class FileCache:
    """A tree of files that builds share."""

    name: str
    root: Path
    is_unit: Callable[[str], bool]
    """Whether a folder (relative path) goes only as a whole."""
    has_fetch_locks: bool = False
    """Whether BitBake locks what it uses here."""
    is_ours: bool = True
    """No other host's builds write here: without builds of ours, empty folders may go."""

    def measure(self, keep: Watch, now_s: float, cancel: CancelToken) -> Census:
        """Count all units; raises `OSError`, `CancelledError`."""
        # One thread: looking is mostly Python's own work, and threads only wait for each other.
        return _Walk(self, keep, int(now_s), cancel).run(1)

    def remove(
        self,
        cut: Cut,
        keep: Watch,
        now_s: float,
        cancel: CancelToken,
        tell: Tell | None = None,
        *,
        dry_run: bool = False,
    ) -> Census:
        """Delete what the cut takes and nobody needs; count that. `tell` comes from any thread.

        Raises `OSError`, `CancelledError`.
        """
        return _Walk(self, keep, int(now_s), cancel, cut, tell, dry_run).run(_DELETERS)


def sstate_cache(root: Path, *, is_ours: bool = True) -> FileCache:
    """SSTATE_DIR: objects in folders of any depth."""
    return FileCache("sstate", root, lambda _: False, is_ours=is_ours)


def downloads_cache(root: Path, *, is_ours: bool = True) -> FileCache:
    """DL_DIR: files, mirrors of repositories, and other folders, each as a whole."""
    return FileCache("downloads", root, _is_download, has_fetch_locks=True, is_ours=is_ours)


def _is_download(folder: str) -> bool:
    return folder not in _OF_FETCHERS


@dataclass(frozen=True)
class _Walk:
    """One pass; without a cut it counts, with one it counts what goes."""

    cache: FileCache
    keep: Watch
    now_s: int
    cancel: CancelToken
    cut: Cut | None = None
    tell: Tell | None = None
    dry_run: bool = False

    def run(self, threads: int) -> Census:
        total = Census()
        with contextlib.ExitStack() as stack:
            try:
                root = stack.enter_context(opened(self.cache.root))
            except FileNotFoundError:
                return total
            pool = stack.enter_context(_pool(threads))
            inner: list[str] = []
            pool.submit(self._take, root, "", total, inner, 1).result()
            for part in _in_order(pool, lambda name: self._branch(root, name), inner):
                total.merge(part)
        return total

    def _branch(self, root: int, name: str) -> Census:
        found = Census()
        self._enter(root, name, name, found, 1)
        return found

    def _enter(self, parent: int, name: str, relative: str, found: Census, depth: int) -> bool:
        """Go into a folder; says whether it is gone afterwards."""
        if self.cut is not None and self.cut.spares(relative):
            return False
        try:
            fd = open_folder(name, parent)
        except OSError:
            return False
        try:
            inner: list[str] = []
            left = self._take(fd, relative, found, inner, depth + 1)
            for item in inner:
                left += not self._enter(fd, item, f"{relative}/{item}", found, depth + 1)
        finally:
            os.close(fd)
        return not left and self._prune(parent, name)

    def _prune(self, parent: int, name: str) -> bool:
        # BitBake makes a folder and then writes into it: only without builds is it ours to take.
        is_possible = self.cut is not None and not self.dry_run and self.cache.is_ours
        if not is_possible or not self.keep().is_quiet:
            return False
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            return False
        return True

    def _take(self, fd: int, relative: str, found: Census, inner: list[str], depth: int) -> int:
        """Count or delete the units of a folder, and add its folders to `inner`.

        Returns how many units stay.
        """
        self.cancel.raise_if_cancelled()
        keep, left, oldest = self.keep(), 0, int(sys.maxsize)
        prefix = f"{relative}/" if relative else ""
        for files, folders in chunks_of(fd):
            units = grouped(files, self.now_s)
            for name, _ in folders:
                if self._is_unit(f"{prefix}{name}", name, depth):
                    unit = units.setdefault(name, Unit(name))
                    unit.folder = name
                    with contextlib.suppress(OSError):
                        measure_tree(fd, unit, self.now_s, self.cancel)
                else:
                    inner.append(name)
            for unit in units.values():
                left += not self._take_unit(fd, prefix, unit, keep, found)
                oldest = min(oldest, _earliest(prefix, unit))
        if self.cut is None and relative and not inner:
            found.oldest[relative] = oldest
        return left

    def _is_unit(self, path: str, name: str, depth: int) -> bool:
        return depth >= MAX_DEPTH or name.startswith(DELETING_PREFIX) or self.cache.is_unit(path)

    def _take_unit(self, fd: int, prefix: str, unit: Unit, keep: Keep, found: Census) -> bool:
        """Count the unit, or delete it if it shall go; says whether it is gone."""
        may_go = unit.use_s < keep.since_s and unit.name not in _OWN
        if may_go and keep.hashes:
            parsed = SstateName.parse(unit.name)
            may_go = parsed is None or parsed.unihash not in keep.hashes
        if self.cut is None:
            found.add(unit.use_s, unit.size_bytes, len(unit.files), may_go=may_go)
            return False
        reason = self._reason(prefix, unit, self.cut) if may_go else ""
        if not reason or not (self.dry_run or self._delete(fd, unit)):
            return False
        found.add(unit.use_s, unit.size_bytes, len(unit.files), may_go=False)
        if self.tell is not None:
            path = f"{prefix}{unit.name}"
            self.tell(Removal(self.cache.name, path, unit.size_bytes, unit.use_s, reason))
        return not self.dry_run

    def _reason(self, prefix: str, unit: Unit, cut: Cut) -> str:
        name, age_s = unit.name, self.now_s - unit.use_s
        if name.startswith(DELETING_PREFIX):
            return "a deletion that a crash cut short"
        if (
            age_s > _HALF_WRITTEN_AFTER_S
            and not name.endswith(_OBJECT_SUFFIXES)
            and is_half_written(name)
        ):
            return "left half-written by a build that was killed"
        if age_s > _DAMAGED_AFTER_S and prefix.startswith(f"{DAMAGED}/"):
            return "damaged, set aside two weeks ago"
        return cut.reason(unit.use_s, unit.size_bytes)

    def _delete(self, fd: int, unit: Unit) -> bool:
        if not self.cache.has_fetch_locks:
            return delete_unit(fd, unit)
        with fetch_lock(fd, unit.name) as is_ours:
            return is_ours and self._is_unused_still(fd, unit) and delete_unit(fd, unit)

    def _is_unused_still(self, fd: int, unit: Unit) -> bool:
        """Whether no build has used a download between our look at it and its lock."""
        for name in unit.files:
            with contextlib.suppress(OSError):
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if unit.use_s < int(info.st_mtime) <= self.now_s + 1:
                    return False
        return True


def _earliest(prefix: str, unit: Unit) -> int:
    """The last use of an object; 0 for what may go for another reason than its age."""
    is_object = unit.name.endswith(_OBJECT_SUFFIXES) and not unit.folder
    return unit.use_s if is_object and not prefix.startswith(f"{DAMAGED}/") else 0


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers, "cache-walk", initializer=idle_priority)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], Census], names: Sequence[str]
) -> Iterator[Census]:
    waiting: list[Future[Census]] = [pool.submit(work, name) for name in names]
    for future in waiting:
        yield future.result()
