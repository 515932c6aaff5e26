"""Goes through folders that builds write to: by handle, following no symlink, bounded in depth."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = [
    "MAX_DEPTH",
    "Entry",
    "chunks_of",
    "delete_tree",
    "idle_priority",
    "open_folder",
    "opened",
]

MAX_DEPTH: Final = 24
"""Deeper folders than any cache has; a recipe may have made thousands, each in the last."""

Entry = tuple[str, os.stat_result]
"""Name, and what lstat says."""

_CHUNK: Final = 1 << 16
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DELETE: Final = """
rm -rf --one-file-system -- "$1" 2>/dev/null && exit
chmod -R u+rwX -- "$1"
rm -rf --one-file-system -- "$1"
"""


def open_folder(name: str, parent: int | None = None) -> int:
    """A handle on a folder, no symlink; raises `OSError`."""
    return os.open(name, _OPEN, dir_fd=parent)


@contextlib.contextmanager
def opened(root: Path, relative: str = "") -> Iterator[int]:
    """A handle on a folder below the root, whose own path may hold symlinks; raises `OSError`."""
    fd = open_folder(os.path.realpath(root))
    try:
        for part in Path(relative).parts:
            inner = open_folder(part, fd)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def chunks_of(folder: int) -> Iterator[tuple[list[Entry], list[Entry]]]:
    """Files and folders in a folder, in chunks, so that a huge one costs no memory.

    What goes away meanwhile is left out. Symlinks, FIFOs and devices count as files.
    """
    files: list[Entry] = []
    folders: list[Entry] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            (folders if stat.S_ISDIR(info.st_mode) else files).append((entry.name, info))
            if len(files) + len(folders) >= _CHUNK:
                yield files, folders
                files, folders = [], []
    yield files, folders


def delete_tree(folder: int, name: str) -> bool:
    """Delete a folder in an open folder, however deep and unwritable; says whether it is gone.

    `rm` works by handle, and is stopped by a mount that was left inside.
    """
    subprocess.run(
        ["/bin/sh", "-c", _DELETE, "smidr-delete", f"./{name}"],
        cwd=f"/proc/self/fd/{folder}",
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def idle_priority() -> None:
    """Let this thread, and what it starts, use the disk only when nobody else does.

    Priorities belong to threads in Linux (ioprio_set(2)): call it in a thread that ends.
    """
    import psutil  # noqa: PLC0415 - only whoever deletes pays for it

    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        psutil.Process(threading.get_native_id()).ionice(psutil.IOPRIO_CLASS_IDLE)
