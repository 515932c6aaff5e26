"""A project directory between jobs: earlier jobs could write all of it, `.git` too.

git runs programs that a repository's config names. So before git looks at a directory that a job
had, everything in `.git` that can name a program or lead elsewhere is taken away. Content is not
proved: a directory must only be used again for the same project and the same trust.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.errors import InternalError
from smidr_ci.files import (
    MARKER_NAME,
    as_host_error,
    make_marked_dir,
    remove_marked_tree,
    write_atomic,
)

__all__ = ["scrub", "wipe"]

_REMOVED: Final = (
    "hooks", "info", "modules", "worktrees", "commondir", "config.worktree", "gitdir", "config",
    "objects/info", "refs/replace", "branches", "remotes", "sequencer", "rebase-merge",
    "rebase-apply", "fsmonitor--daemon", "fsmonitor--daemon.ipc",
)  # fmt: skip


def wipe(path: Path, root: Path) -> None:
    """Delete what is at `path`, strictly below `root`, without following a link.

    `root` must carry the marker of directories that smidr may delete from. Raises `HostError`.
    """
    if not os.path.lexists(path):
        return
    parent = path.parent.resolve()
    if not (parent == root.resolve() or parent.is_relative_to(root.resolve())):
        raise InternalError(f"refusing to delete {path}: it is not below {root}")
    if not (root / MARKER_NAME).is_file():
        raise InternalError(f"refusing to delete {path}: {root} is not smidr's")
    try:
        # What a job left can't be given a marker: that could write through a link of its own.
        around = make_marked_dir(root / f".wiped-{os.urandom(6).hex()}")
        os.rename(path, around / "tree")
        remove_marked_tree(around, root)
    except OSError as error:
        raise as_host_error(error, "can't empty the project directory", path) from error


def scrub(directory: Path, *, object_format: str = "sha1") -> bool:
    """Make `.git` harmless and remove what a killed git left; False when it is beyond that.

    Then the directory must be wiped. Raises `HostError`.
    """
    git_dir = directory / ".git"
    try:
        if not stat.S_ISDIR(git_dir.lstat().st_mode):
            return False
        if not _is_plain(git_dir) or _object_format(git_dir) != object_format:
            return False
        for name in _REMOVED:
            _remove(git_dir / name)
        for lock in _locks(git_dir):
            lock.unlink(missing_ok=True)
        (git_dir / "objects" / "info").mkdir(exist_ok=True)
        write_atomic(git_dir / "config", _config(object_format))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise as_host_error(error, "can't clean the project directory", git_dir) from error
    return True


def _config(object_format: str) -> str:
    is_sha1 = object_format == "sha1"
    lines = [
        "[core]",
        f"\trepositoryformatversion = {0 if is_sha1 else 1}",
        "\tfilemode = true",
        "\tbare = false",
        "\tlogallrefupdates = true",
    ]
    if not is_sha1:
        lines += ["[extensions]", f"\tobjectformat = {object_format}"]
    return "\n".join(lines) + "\n"


def _object_format(git_dir: Path) -> str:
    """Of the ids in HEAD or, when it is symbolic, as the config says."""
    head = (git_dir / "HEAD").read_bytes()[:200].strip()
    if len(head) == 64:
        return "sha256"
    if len(head) == 40:
        return "sha1"
    return "sha256" if b"sha256" in (git_dir / "config").read_bytes()[:65536] else "sha1"


def _is_plain(folder: Path) -> bool:
    """Whether there are only files and directories in it, and no link to elsewhere."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    return False
    return True


def _locks(git_dir: Path) -> Iterator[Path]:
    yield from git_dir.glob("*.lock")
    yield from (git_dir / "refs").glob("**/*.lock")
    yield from (git_dir / "objects").glob("**/tmp_*")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
