"""Leases: a fresh directory for exactly one build, held by a kernel lock."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import HostError, InternalError, UsageError
from smidr_ci.files import (
    DELETING_PREFIX,
    MARKER_NAME,
    as_host_error,
    make_marked_dir,
    set_aside_marked_tree,
)
from smidr_ci.locks import KernelLock, is_locked, take_lock, try_lock
from smidr_ci.workspaces.model import Budget, RestingWorkspace, Workspace
from smidr_ci.workspaces.note import Note
from smidr_ci.workspaces.removal import delete_detached, disk_usage

__all__ = ["WorkspaceStore"]

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}", re.ASCII)
_LOCK: Final = "lease.lock"
_NEW_PREFIX: Final = ".new-"
_ABANDONED_AFTER: Final = timedelta(hours=1)


class WorkspaceStore:
    """Workspaces under one root, `<root>/<key>/<n>/`, safe among processes.

    The lock is a file beside the mounted directories, so builds can't reach it, and processes
    that share a root but not a home still keep apart. `owner` (uid, gid) gets the directories
    when this process is root. `delete` takes away a tree that was renamed.
    """

    def __init__(
        self,
        root: Path,
        *,
        owner: tuple[int, int] | None = None,
        clock: Clock | None = None,
        delete: Callable[[Path], object] = delete_detached,
    ) -> None:
        self._root = root.absolute()
        self._owner = owner if os.geteuid() == 0 else None
        self._clock = clock or SystemClock()
        self._delete = delete
        self._held: dict[Path, KernelLock] = {}

    def lease(
        self, key: str, build_id: str, extra_roots: Mapping[str, Path] | None = None
    ) -> Workspace:
        """A fresh workspace, held until `release` or the end of this process.

        `extra_roots` (name -> root) asks for a private directory in each; see `Workspace.extra`.
        Raises `HostError` when the disk is full or the root can't be used.
        """
        folder = self._folder(key)
        try:
            self._make_trusted(folder)
            return self._make(folder, Note(build_id), extra_roots or {})
        except OSError as error:
            raise as_host_error(error, "can't make a workspace", folder) from error

    def adopt(self, build_id: str) -> Workspace | None:
        """Take over the workspace of a build whose process died; None when there is none.

        Raises `UsageError` when a living process holds it.
        """
        return self._take(build_id, is_kept=False)

    def reopen(self, build_id: str) -> Workspace | None:
        """Hold a workspace that was kept; None when there is none.

        Raises `UsageError` when a living process holds it.
        """
        return self._take(build_id, is_kept=True)

    def _take(self, build_id: str, *, is_kept: bool) -> Workspace | None:
        for folder, note in self._all():
            if note.build_id == build_id and (note.released is not None) is is_kept:
                lock = take_lock(folder / _LOCK, self._clock)
                if lock is None:
                    raise UsageError(f"another process holds the workspace of {build_id}")
                self._held[folder] = lock
                return Workspace(folder, folder.parent.name, build_id, note.extra)
        return None

    def release(self, workspace: Workspace, *, keep: bool) -> None:
        """End the lease: keep the workspace for later, or take it away in the background.

        A second call does nothing.
        """
        lock = self._held.pop(workspace.path, None)
        if lock is None:
            return
        with lock:
            try:
                if keep:
                    self._keep(workspace)
                else:
                    self._remove(workspace.path, workspace.extra)
            except OSError as error:
                raise as_host_error(error, "can't release a workspace", workspace.path) from error

    def list_kept(self) -> list[RestingWorkspace]:
        """Workspaces that were kept and that nobody uses, oldest first."""
        kept = [item for item in self._resting() if item.released is not None]
        return sorted(kept, key=lambda item: (item.released, item.path))

    def leftovers(self) -> list[RestingWorkspace]:
        """What dead processes left; a container may still use it, so ask before you `discard`."""
        return [item for item in self._resting() if item.released is None]

    def discard(self, workspace: RestingWorkspace) -> bool:
        """Take one away that nobody uses; False when somebody has taken it meanwhile."""
        lock = take_lock(workspace.path / _LOCK, self._clock) if workspace.path.is_dir() else None
        if lock is None:
            return False
        with lock:
            self._remove(workspace.path, workspace.extra)
        return True

    def sweep(self, budget: Budget) -> list[RestingWorkspace]:
        """Take away the oldest kept workspaces beyond the budget, and half-done removals."""
        self._finish_removals()
        kept = self.list_kept()
        total, gone = sum(item.size_bytes for item in kept), list[RestingWorkspace]()
        for index, item in enumerate(kept):
            if len(kept) - index <= budget.count and total <= budget.size_bytes:
                break
            if self.discard(item):
                gone.append(item)
            total -= item.size_bytes
        return gone

    def _folder(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise InternalError(f"{key[:80]!r} can't name a workspace")
        return self._root / key

    def _make_trusted(self, folder: Path) -> None:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        info = os.stat(folder, follow_symlinks=False)
        if folder.is_symlink() or info.st_uid != os.geteuid():
            raise HostError(
                "workspaces can't be kept in somebody else's directory",
                where=str(folder),
                hint="Remove it, or choose another 'directories.build'.",
            )

    def _make(self, folder: Path, note: Note, extra_roots: Mapping[str, Path]) -> Workspace:
        note = note.with_extra(extra_roots)
        path, lock = self._make_whole(folder, note)
        self._held[path] = lock
        workspace = Workspace(path, folder.name, note.build_id, note.extra)
        try:
            for place in note.extra.values():
                make_marked_dir(place.parent)
                self._make_owned(place)
        except BaseException:
            self.release(workspace, keep=False)
            raise
        return workspace

    def _make_whole(self, folder: Path, note: Note) -> tuple[Path, KernelLock]:
        # It appears under its number whole and locked, or not at all.
        fresh = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=folder))
        lock = None
        try:
            fresh.chmod(0o755)
            lock = try_lock(fresh / _LOCK)
            if lock is None:
                raise InternalError(f"the new directory {fresh} is locked")
            make_marked_dir(fresh)
            self._make_owned(fresh / "build")
            self._make_owned(fresh / "home")
            note.write(fresh)
            return _rename_to_free_number(fresh), lock
        except BaseException:
            if lock is not None:
                lock.release()
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _make_owned(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        if self._owner is not None:
            os.chown(folder, *self._owner)

    def _keep(self, workspace: Workspace) -> None:
        places = [workspace.path, *workspace.extra.values()]
        size = sum(disk_usage(place) for place in places)
        note = Note(workspace.build_id, workspace.extra, self._clock.now(), size)
        note.write(workspace.path)

    def _remove(self, path: Path, extra: Mapping[str, Path]) -> None:
        # The note goes last: while it is there, a later sweep knows of the others.
        for place in extra.values():
            self._take_away(place.parent)
        self._take_away(path)

    def _take_away(self, path: Path) -> None:
        doomed = set_aside_marked_tree(path, path.parent)
        if doomed is not None:
            self._delete(doomed)

    def _own_folders(self) -> list[Path]:
        # In a shared root, another user's notes must not make us delete anything.
        mine = os.geteuid()
        return [path for path in _subdirectories(self._root) if path.stat().st_uid == mine]

    def _all(self) -> Iterator[tuple[Path, Note]]:
        for folder in self._own_folders():
            for path in _subdirectories(folder):
                if path.name.isdigit() and (path / MARKER_NAME).is_file():
                    yield path, Note.read(path)

    def _resting(self) -> Iterator[RestingWorkspace]:
        for path, note in self._all():
            with contextlib.suppress(FileNotFoundError):
                if not is_locked(path / _LOCK):
                    yield RestingWorkspace(
                        path,
                        path.parent.name,
                        note.build_id,
                        note.extra,
                        note.released,
                        note.size_bytes,
                    )

    def _finish_removals(self) -> None:
        latest = (self._clock.now() - _ABANDONED_AFTER).timestamp()
        for folder in self._own_folders():
            for path in _subdirectories(folder):
                with contextlib.suppress(OSError, InternalError):
                    if path.stat(follow_symlinks=False).st_mtime > latest:
                        continue
                    if path.name.startswith(DELETING_PREFIX):
                        self._delete(path)
                    elif path.name.startswith(_NEW_PREFIX) and not is_locked(path / _LOCK):
                        make_marked_dir(path)  # the crash may have come before the marker
                        self._take_away(path)


def _rename_to_free_number(fresh: Path) -> Path:
    number = 1
    while True:
        path = fresh.parent / str(number)
        try:
            # Only an empty directory would be replaced, and workspaces are never empty.
            fresh.rename(path)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
            number += 1
        else:
            return path


def _subdirectories(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(item.path) for item in entries if item.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
