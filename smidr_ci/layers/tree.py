"""Immutable trees on disk: `trees/<repository>/<commit>/` with the files below `tree/`.

The marker, the lease file and our notes lie beside `tree/`, so a build never sees them. A tree
appears by one rename, when it is complete; what a killed process left is swept by the next maker.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import LayerError
from smidr_ci.files import make_marked_dir, remove_marked_tree, write_atomic
from smidr_ci.layers.locks import hold, hold_now

__all__ = ["StoredTree", "TreeStore"]

_FORMAT: Final = 1
_NOTES: Final = "notes.json"
_LEASE: Final = "lease"
_TREE: Final = "tree"
_TIMES: Final = "times.json"
_SHARED: Final = ".metadata"


@dataclass(frozen=True)
class StoredTree:
    """One complete tree in the store."""

    repository: str
    commit: str
    home: Path
    notes: Mapping[str, Any]
    """What was found out when it was made (see `LayerStore`)."""

    @property
    def files(self) -> Path:
        """The directory to mount."""
        return self.home / _TREE

    @property
    def last_used(self) -> float:
        """When it was last leased or made, in seconds since 1970."""
        return (self.home / _LEASE).stat().st_mtime


@dataclass(frozen=True)
class TreeStore:
    """All trees of this host below `root`; safe for many processes at once."""

    root: Path
    locks: Path

    @property
    def shared(self) -> Path:
        """Files that trees have in common, by content; one that no tree uses has one link."""
        return self.root / _SHARED

    def find(self, repository: str, commit: str) -> StoredTree | None:
        """The tree, if it is complete; reads one small file.

        The first time after a reboot its files are counted and measured: a power cut may have
        taken what was written last, which no rename can prevent.
        """
        home = self.root / repository / commit
        try:
            notes = json.loads((home / _NOTES).read_bytes())
            if not isinstance(notes, dict) or notes.get("format") != _FORMAT:
                return None
            if notes["boot"] != _boot_id():
                if notes["size"] != _measure(home / _TREE):
                    return None
                notes["boot"] = _boot_id()
                write_atomic(home / _NOTES, json.dumps(notes, indent=1))
        except (OSError, ValueError, KeyError):
            return None
        return StoredTree(repository, commit, home, notes)

    def make(
        self,
        repository: str,
        commit: str,
        fill: Callable[[Path], Mapping[str, Any]],
        cancel: CancelToken,
    ) -> StoredTree:
        """Return the tree; when it is missing, `fill` writes it into a directory and returns notes.

        Whatever `fill` raises goes through, and nothing is left behind.
        """
        with hold(self.locks / f"trees-{repository}.lock", cancel):
            found = self.find(repository, commit)
            return found or self._make_locked(repository, commit, fill)

    def _make_locked(
        self, repository: str, commit: str, fill: Callable[[Path], Mapping[str, Any]]
    ) -> StoredTree:
        folder = self.root / repository
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for left in [*folder.glob(".new-*"), *folder.glob(".deleting-*")]:
            _remove_leftover(left, self.root)
        if (folder / commit).exists():
            self._remove_unreadable(folder / commit)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
        try:
            make_marked_dir(fresh)
            fresh.chmod(0o755)
            (fresh / _TREE).mkdir()
            notes = {**fill(fresh / _TREE), "format": _FORMAT, "boot": _boot_id()}
            notes["size"] = _measure(fresh / _TREE)
            (fresh / _LEASE).touch(mode=0o600)
            (fresh / _NOTES).write_text(json.dumps(notes, indent=1), encoding="utf-8")
            fresh.rename(folder / commit)
        except BaseException:
            _remove_leftover(fresh, self.root)
            raise
        return StoredTree(repository, commit, folder / commit, notes)

    def _remove_unreadable(self, home: Path) -> None:
        # Its notes are from another version of smidr, or lost: make it anew, but under nobody.
        with hold_now(home / _LEASE) as lease:
            if lease is None:
                raise LayerError(
                    "the layer tree is damaged and still in use by a build",
                    where=str(home),
                    hint="Wait for that build to end, then try again.",
                )
            remove_marked_tree(home, self.root)

    def claim_time(self, seconds: int, content: str, cancel: CancelToken) -> int:
        """The time for all files of a tree that are not metadata: `seconds`, or the next free one.

        BitBake keeps a file's checksum while its time is unchanged (bb/checksum.py), so two trees
        with different content never get the same time, not even commits made in one second.
        """
        path = self.root / _TIMES
        with hold(self.locks / "tree-times.lock", cancel):
            try:
                taken = json.loads(path.read_bytes())
            except (OSError, ValueError):
                taken = {}
            while taken.get(str(seconds), content) != content:
                seconds += 1
            if str(seconds) not in taken:
                taken[str(seconds)] = content
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(taken), encoding="utf-8")
                fresh.replace(path)
        return seconds

    @contextmanager
    def lease(self, homes: list[Path]) -> Iterator[None]:
        """Keep these trees (`StoredTree.home`) from being removed while the context lasts.

        Raises `LayerError` when one is gone already.
        """
        with ExitStack() as stack:
            for home in homes:
                self._lease_one(stack, home)
            yield

    def _lease_one(self, stack: ExitStack, home: Path) -> None:
        lease = home / _LEASE
        if lease.is_file():
            fd = stack.enter_context(hold_now(lease, shared=True))
            with suppress(OSError):
                os.utime(lease)
                # A remover renames first: the lock counts only if the file is still in its place.
                if fd is not None and os.fstat(fd).st_ino == lease.stat().st_ino:
                    return
        raise LayerError(
            "the layer tree was removed in the meantime",
            where=str(home),
            hint="Start the build again; the tree is made anew.",
        )

    def list_trees(self) -> list[StoredTree]:
        """All complete trees, in no order."""
        found = (
            self.find(home.parent.name, home.name)
            for home in self.root.glob("*/*")
            if not home.name.startswith(".") and home.is_dir()
        )
        return [tree for tree in found if tree is not None]

    def remove(self, tree: StoredTree) -> bool:
        """Delete a tree unless it is leased or being made; says whether it is gone."""
        with hold_now(self.locks / f"trees-{tree.repository}.lock") as maker:
            if maker is None:
                return False
            if not tree.home.is_dir():
                return True
            with hold_now(tree.home / _LEASE) as lease:
                if lease is None:
                    return False
                remove_marked_tree(tree.home, self.root)
        self._drop_unused()
        return True

    def _drop_unused(self) -> None:
        for folder, _, names in os.walk(self.shared):
            for name in names:
                with suppress(FileNotFoundError):
                    if os.lstat(f"{folder}/{name}").st_nlink == 1:
                        os.unlink(f"{folder}/{name}")


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _measure(tree: Path) -> list[int]:
    """How many files, and how many bytes they have."""
    count = size = 0
    for folder, _, names in os.walk(tree):
        count += len(names)
        size += sum(os.lstat(f"{folder}/{name}").st_size for name in names)
    return [count, size]


def _remove_leftover(path: Path, root: Path) -> None:
    # Killed before the marker was written, or in the middle of a removal: our own name says enough.
    if path.is_symlink() or not path.is_dir() or path.parent.parent != root:
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)
