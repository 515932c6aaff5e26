"""Workspaces that nobody holds: listed, swept, and taken away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import InternalError
from smidr_ci.files import DELETING_PREFIX, MARKER_NAME, make_marked_dir, set_aside_marked_tree
from smidr_ci.locks import is_locked, take_lock
from smidr_ci.workspaces.eviction import beyond
from smidr_ci.workspaces.folders import subdirectories
from smidr_ci.workspaces.model import Budget, RestingWorkspace
from smidr_ci.workspaces.note import Note, boot_id
from smidr_ci.workspaces.removal import delete_detached

__all__ = ["LOCK_NAME", "NEW_PREFIX", "RestingStore", "noted"]

LOCK_NAME: Final = "lease.lock"
NEW_PREFIX: Final = ".new-"
"""How a directory's name begins until it is whole."""
_ABANDONED_AFTER: Final = timedelta(hours=1)
_NONE: Final = Budget(0, 0)


class RestingStore:
    """The part of a `WorkspaceStore` that deals with what is not leased."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock | None = None,
        delete: Callable[[Path], object] = delete_detached,
        boot: str | None = None,
    ) -> None:
        """`delete` takes away a tree that was renamed; `boot` names this start of the host."""
        self._root = root.absolute()
        self._clock = clock or SystemClock()
        self._delete = delete
        self._boot = boot_id() if boot is None else boot

    def list_kept(self) -> list[RestingWorkspace]:
        """Workspaces that were kept and that nobody uses, oldest first."""
        kept = [item for item in self._resting() if item.released is not None]
        return sorted(kept, key=lambda item: (item.released, item.path))

    def leftovers(self) -> list[RestingWorkspace]:
        """What dead processes left; a container may still use it, so ask before you `discard`."""
        return [item for item in self._resting() if item.released is None]

    def discard(self, workspace: RestingWorkspace) -> bool:
        """Take one away that nobody uses; False when somebody has taken it meanwhile."""
        try:
            lock = take_lock(workspace.path / LOCK_NAME, self._clock)
        except FileNotFoundError:
            return False
        if lock is None:
            return False
        with lock:
            note = Note.read(workspace.path)
            # Another build may have had it since it was looked at, and may go on with it.
            is_same = (note.build_id, note.released) == (workspace.build_id, workspace.released)
            if is_same:
                self._remove(workspace.path, workspace.extra)
        return is_same

    def sweep(self, kept: Budget, warm: Budget = _NONE) -> list[RestingWorkspace]:
        """Take away kept workspaces beyond the budget, and half-done removals; what went.

        `warm` is the budget of those that later builds may go on in.
        """
        self._finish_removals()
        gone = list[RestingWorkspace]()
        resting = self.list_kept()
        for is_warm, budget in ((False, kept), (True, warm)):
            group = [item for item in resting if bool(item.warm_key) is is_warm]
            gone += [item for item in beyond(group, budget) if self.discard(item)]
        return gone

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
        return [path for path in subdirectories(self._root) if path.stat().st_uid == mine]

    def _all(self) -> Iterator[tuple[Path, Note]]:
        for folder in self._own_folders():
            yield from noted(folder)

    def _resting(self) -> Iterator[RestingWorkspace]:
        for path, note in self._all():
            with contextlib.suppress(FileNotFoundError):
                if not is_locked(path / LOCK_NAME):
                    yield RestingWorkspace(
                        path,
                        path.parent.name,
                        note.build_id,
                        note.extra,
                        note.released,
                        note.size_bytes,
                        note.warm_key if note.is_reusable(self._boot) else "",
                    )

    def _finish_removals(self) -> None:
        latest = (self._clock.now() - _ABANDONED_AFTER).timestamp()
        for folder in self._own_folders():
            for path in subdirectories(folder):
                with contextlib.suppress(OSError, InternalError):
                    if path.stat(follow_symlinks=False).st_mtime > latest:
                        continue
                    if path.name.startswith(DELETING_PREFIX):
                        self._delete(path)
                    elif path.name.startswith(NEW_PREFIX) and not is_locked(path / LOCK_NAME):
                        make_marked_dir(path)  # the crash may have come before the marker
                        self._take_away(path)


def noted(folder: Path) -> Iterator[tuple[Path, Note]]:
    """Each workspace in a key's directory, with its note."""
    for path in subdirectories(folder):
        if path.name.isdigit() and (path / MARKER_NAME).is_file():
            yield path, Note.read(path)
