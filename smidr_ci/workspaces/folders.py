"""Directories of workspaces: made for the builder, numbered, and kept from other users."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from smidr_ci.errors import HostError

__all__ = ["is_directory", "make_owned", "make_trusted", "rename_to_free_number", "subdirectories"]


def make_trusted(folder: Path) -> None:
    """Make the directory; `HostError` when it is somebody else's."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    info = os.stat(folder, follow_symlinks=False)
    if folder.is_symlink() or info.st_uid != os.geteuid():
        raise HostError(
            "workspaces can't be kept in somebody else's directory",
            where=str(folder),
            hint="Remove it, or choose another 'directories.build'.",
        )


def make_owned(folder: Path, owner: tuple[int, int] | None) -> None:
    """Make a new directory for the builder (uid, gid); None is this user."""
    folder.mkdir(mode=0o755)
    if owner is not None:
        os.chown(folder, *owner)


def rename_to_free_number(fresh: Path) -> Path:
    """Give a directory that is not empty the first free number beside it; its new path."""
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


def subdirectories(folder: Path) -> list[Path]:
    """Real directories in it, sorted; none when it is missing."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(item.path) for item in entries if item.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_directory(path: Path) -> bool:
    """Whether it is a directory itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()
