"""Leases: a directory for exactly one build at a time, fresh or warm, held by a kernel lock."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.errors import InternalError, UsageError
from smidr_ci.files import (
    DELETING_PREFIX,
    as_host_error,
    make_marked_dir,
)
from smidr_ci.locks import KernelLock, take_lock, try_lock
from smidr_ci.workspaces.folders import (
    is_directory,
    make_owned,
    make_trusted,
    rename_to_free_number,
)
from smidr_ci.workspaces.model import Workspace
from smidr_ci.workspaces.note import Note
from smidr_ci.workspaces.removal import delete_detached, disk_usage
from smidr_ci.workspaces.resting import LOCK_NAME, NEW_PREFIX, RestingStore, noted

__all__ = ["WorkspaceStore"]

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}", re.ASCII)


class WorkspaceStore(RestingStore):
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
        boot: str | None = None,
    ) -> None:
        """`boot` names this start of the host; the default is what the kernel says."""
        super().__init__(root, clock=clock, delete=delete, boot=boot)
        self._owner = owner if os.geteuid() == 0 else None
        self._held: dict[Path, KernelLock] = {}

    def lease(
        self,
        key: str,
        build_id: str,
        extra_roots: Mapping[str, Path] | None = None,
        *,
        warm_key: str = "",
    ) -> Workspace:
        """A fresh workspace, held until `release` or the end of this process.

        `extra_roots` (name -> root) asks for a private directory in each; see `Workspace.extra`.
        Raises `HostError` when the disk is full or the root can't be used.
        """
        folder = self._folder(key)
        try:
            make_trusted(folder)
            return self._make(folder, Note(build_id, warm_key=warm_key), extra_roots or {})
        except OSError as error:
            raise as_host_error(error, "can't make a workspace", folder) from error

    def lease_warm(
        self,
        key: str,
        build_id: str,
        warm_key: str,
        taking: Callable[[str], object] = lambda _: None,
    ) -> Workspace | None:
        """The workspace that was left last for builds with this `warm_key`; None without one.

        HOME in it is new. From here on it is this build's alone: when its process dies, nobody
        goes on in it but the same build. `taking` hears whose it was, before it is taken.
        """
        folder = self._folder(key)
        try:
            found = [(note.released, path) for path, note in self._warm(folder, warm_key)]
            for _, path in sorted(found, reverse=True):
                workspace = self._rewarm(path, build_id, warm_key, taking)
                if workspace is not None:
                    return workspace
        except OSError as error:
            raise as_host_error(error, "can't use a workspace again", folder) from error
        return None

    def _warm(self, folder: Path, warm_key: str) -> Iterator[tuple[Path, Note]]:
        is_mine = is_directory(folder) and folder.stat().st_uid == os.geteuid()
        for path, note in noted(folder) if is_mine else ():
            if note.warm_key == warm_key and note.is_reusable(self._boot):
                yield path, note

    def _rewarm(
        self, path: Path, build_id: str, warm_key: str, taking: Callable[[str], object]
    ) -> Workspace | None:
        try:
            lock = take_lock(path / LOCK_NAME, self._clock)
        except FileNotFoundError:  # it was evicted meanwhile
            return None
        if lock is None:
            return None
        note = Note.read(path)
        is_whole = all(map(is_directory, (path / "build", path / "home", *note.extra.values())))
        # Another process may have had it since we looked.
        if note.warm_key != warm_key or not note.is_reusable(self._boot) or not is_whole:
            lock.release()
            return None
        try:
            taking(note.build_id)
            mine = replace(note, build_id=build_id, after=note.build_id, released=None, boot_id="")
            mine.write(path)
            self._renew_home(path)
        except BaseException:
            lock.release()
            raise
        self._held[path] = lock
        return _workspace(path, mine)

    def _renew_home(self, path: Path) -> None:
        doomed = path / f"{DELETING_PREFIX}{secrets.token_hex(6)}"
        (path / "home").rename(doomed)
        make_owned(path / "home", self._owner)
        self._delete(doomed)

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
                lock = take_lock(folder / LOCK_NAME, self._clock)
                if lock is None:
                    raise UsageError(f"another process holds the workspace of {build_id}")
                self._held[folder] = lock
                return _workspace(folder, note)
        return None

    def release(
        self,
        workspace: Workspace,
        *,
        keep: bool,
        is_reusable: bool = False,
        has_failed: bool = False,
        is_unchanged: bool = False,
    ) -> None:
        """End the lease: keep the workspace for later, or take it away in the background.

        `is_reusable` lets others with its `warm_key` go on in it; `is_unchanged` spares measuring
        it again. A second call does nothing.
        """
        lock = self._held.pop(workspace.path, None)
        if lock is None:
            return
        with lock:
            try:
                if keep:
                    note = Note(
                        workspace.build_id,
                        workspace.extra,
                        self._clock.now(),
                        workspace.size_bytes if is_unchanged else 0,
                        workspace.warm_key,
                        workspace.after,
                        workspace.failures + 1 if has_failed else 0,
                        self._boot if is_reusable else "",
                    )
                    self._keep(workspace, note)
                else:
                    self._remove(workspace.path, workspace.extra)
            except OSError as error:
                raise as_host_error(error, "can't release a workspace", workspace.path) from error

    def _folder(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise InternalError(f"{key[:80]!r} can't name a workspace")
        return self._root / key

    def _make(self, folder: Path, note: Note, extra_roots: Mapping[str, Path]) -> Workspace:
        note = note.with_extra(extra_roots)
        path, lock = self._make_whole(folder, note)
        self._held[path] = lock
        workspace = _workspace(path, note)
        try:
            for place in note.extra.values():
                make_marked_dir(place.parent)
                make_owned(place, self._owner)
        except BaseException:
            self.release(workspace, keep=False)
            raise
        return workspace

    def _make_whole(self, folder: Path, note: Note) -> tuple[Path, KernelLock]:
        # It appears under its number whole and locked, or not at all.
        fresh = Path(tempfile.mkdtemp(prefix=NEW_PREFIX, dir=folder))
        lock = None
        try:
            fresh.chmod(0o755)
            lock = try_lock(fresh / LOCK_NAME)
            if lock is None:
                raise InternalError(f"the new directory {fresh} is locked")
            make_marked_dir(fresh)
            make_owned(fresh / "build", self._owner)
            make_owned(fresh / "home", self._owner)
            note.write(fresh)
            return rename_to_free_number(fresh), lock
        except BaseException:
            if lock is not None:
                lock.release()
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _keep(self, workspace: Workspace, note: Note) -> None:
        if not note.size_bytes:
            places = [workspace.path, *workspace.extra.values()]
            note = replace(note, size_bytes=sum(disk_usage(place) for place in places))
        note.write(workspace.path)


def _workspace(path: Path, note: Note) -> Workspace:
    return Workspace(
        path,
        path.parent.name,
        note.build_id,
        note.extra,
        note.warm_key,
        note.after,
        note.failures,
        note.size_bytes,
    )
