"""Damaged parts of a cache are moved to `<cache>/damaged/`, never deleted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath

from smidr_ci.caches.units import DAMAGED
from smidr_ci.caches.walk import open_folder, opened

__all__ = ["is_set_aside", "set_aside"]

_BESIDE = (".siginfo", ".sig", ".done")


def set_aside(root: Path, relative: str) -> bool:
    """Move a file or folder and what describes it; False when it is not there or can't be moved.

    Builds can write to caches, and the name may come from a log: no symlink is followed.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return False
    try:
        with opened(root) as top, opened(root, str(path.parent)) as source:
            target = _folder_for_damaged(top)
            try:
                os.rename(path.name, path.name, src_dir_fd=source, dst_dir_fd=target)
                for suffix in _BESIDE:
                    with contextlib.suppress(FileNotFoundError):
                        name = f"{path.name}{suffix}"
                        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            finally:
                os.close(target)
    except OSError:
        return False
    return True


def is_set_aside(root: Path, relative: str) -> bool:
    """Whether a thing of this name lies in `<cache>/damaged/`."""
    with contextlib.suppress(OSError), opened(root, DAMAGED) as folder:
        os.stat(PurePosixPath(relative).name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _folder_for_damaged(top: int) -> int:
    try:
        os.mkdir(DAMAGED, 0o755, dir_fd=top)
    except FileExistsError:
        return open_folder(DAMAGED, top)
    target = open_folder(DAMAGED, top)
    with contextlib.suppress(PermissionError):
        # Builds refuse a cache in which something is not theirs.
        owner = os.fstat(top)
        os.fchown(target, owner.st_uid, owner.st_gid)
    return target
