"""Reads files below a directory without following any symbolic link on the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

__all__ = ["is_file_below", "open_below", "read_link_below", "read_text_below"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def _parent(root: Path, path: str) -> Iterator[tuple[int, str]]:
    *folders, name = [part for part in path.split("/") if part not in {"", "."}] or ["."]
    if ".." in folders or name == "..":
        raise OSError(22, "leaves the tree", path)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)


@contextmanager
def open_below(root: Path, path: str) -> Iterator[IO[bytes]]:
    """Open the regular file `path` below `root`; raises `OSError` for a link anywhere in `path`."""
    with _parent(root, path) as (folder, name):
        fd = os.open(name, _FILE, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "not a regular file", path)
        with os.fdopen(fd, "rb", buffering=0, closefd=False) as file:
            yield file
    finally:
        os.close(fd)


def read_link_below(root: Path, path: str) -> str:
    """Where the link `path` points; raises `OSError`."""
    with _parent(root, path) as (folder, name):
        return os.readlink(name, dir_fd=folder)


def is_file_below(root: Path, path: str) -> bool:
    """Whether `path` is a regular file that is reached without a link."""
    try:
        with _parent(root, path) as (folder, name):
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode)


def read_text_below(root: Path, path: str, limit: int = 1 << 20) -> str | None:
    """The text of a file, None when it is missing, reached by a link, or longer than `limit`."""
    try:
        with open_below(root, path) as file:
            raw = file.read(limit + 1)
    except OSError:
        return None
    return raw.decode(errors="replace") if len(raw) <= limit else None
