"""Which files of a local directory make up a layer: what git knows of, else all of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import LayerError
from smidr_ci.layers.credentials import ChildAccess
from smidr_ci.layers.failures import GitError
from smidr_ci.layers.gitcmd import Git

__all__ = ["LocalFile", "list_files"]

_MAX_FILES: Final = 200_000
_MAX_BYTES: Final = 1 << 30
_MAX_NESTING: Final = 8
_FOLDER: Final = "a folder"


@dataclass(frozen=True)
class LocalFile:
    """A regular file or link; `path` is relative, the rest is what `lstat` said."""

    path: str
    is_link: bool
    is_executable: bool
    size: int
    stamp: tuple[int, int, int, int]
    """Device, inode, modification and change time: equal means unchanged."""


def list_files(
    root: Path, git: Git, cancel: CancelToken, without: tuple[Path, ...] = ()
) -> list[LocalFile]:
    """Tracked and new files of a git work tree (not the ignored ones), else every file; sorted.

    Nothing below `without` is listed, nothing is written, no link is followed. FIFOs, sockets and
    devices are left out. Raises `LayerError` when there is far too much.
    """
    excluded = {str(path) for path in without}
    found: dict[str, LocalFile] = {}
    total = 0
    for file in _files(str(root), "", git, cancel, excluded):
        found[file.path] = file
        total += file.size
        if len(found) > _MAX_FILES or total > _MAX_BYTES:
            raise LayerError(
                f"{root} is too large for a layer: over {_MAX_FILES} files or "
                f"{_MAX_BYTES >> 30} GiB",
                hint="Name the folder with the layers, and list build output in .gitignore.",
            )
    return [found[path] for path in sorted(found)]


def _files(
    root: str, below: str, git: Git, cancel: CancelToken, excluded: set[str], nesting: int = 0
) -> Iterator[LocalFile]:
    here = f"{root}/{below}" if below else root
    if here in excluded:
        return
    names = _known_to_git(Path(here), git, cancel)
    for name in names or _walk(here, excluded, cancel):
        path = f"{below}/{name}" if below else name
        if excluded and any(f"{root}/{path}".startswith(f"{place}/") for place in excluded):
            continue
        file = _look(root, path.rstrip("/"))
        if isinstance(file, LocalFile):
            yield file
        # A repository inside the repository, or a submodule: git names the folder only.
        elif file is _FOLDER and nesting < _MAX_NESTING:
            yield from _files(root, path.rstrip("/"), git, cancel, excluded, nesting + 1)


def _known_to_git(root: Path, git: Git, cancel: CancelToken) -> list[str]:
    # The owner may differ (a checkout made by a CI job); the settings that run programs are off.
    access = ChildAccess(settings=(("safe.directory", "*"),))
    if not any((place / ".git").exists() for place in (root, *root.parents)):
        return []
    try:
        raw = git.run(
            ["-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cancel=cancel,
            access=access,
        )
    except GitError:
        return []
    names = (os.fsdecode(name) for name in raw.split(b"\0"))
    return [name for name in names if name.strip("./")]


def _walk(root: str, excluded: set[str], cancel: CancelToken) -> Iterator[str]:
    pending = [""]
    while pending:
        cancel.raise_if_cancelled()
        below = pending.pop()
        with os.scandir(f"{root}/{below}" if below else root) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.name == ".git" or f"{root}/{path}" in excluded:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                else:
                    yield path


def _look(root: str, path: str) -> LocalFile | str | None:
    try:
        info = os.lstat(f"{root}/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(info.st_mode):
        return _FOLDER
    is_link = stat.S_ISLNK(info.st_mode)
    if not is_link and not stat.S_ISREG(info.st_mode):
        return None
    return LocalFile(
        path,
        is_link,
        is_executable=not is_link and bool(info.st_mode & stat.S_IXUSR),
        size=0 if is_link else info.st_size,
        stamp=(info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns),
    )
