"""Files and directories handled with suspicion: atomic writes, safe reads, safe deletion.

Builds write into directories that smidr reads afterwards; what lies there may be a stranger's
symlink, FIFO or device. Everything that reads from or deletes such a place goes through here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from io import FileIO
from pathlib import Path
from typing import Final

from smidr_ci.errors import FailureKind, HostError, InternalError

__all__ = [
    "DELETING_PREFIX",
    "MARKER_NAME",
    "as_host_error",
    "make_marked_dir",
    "make_private_dir",
    "open_untrusted",
    "remove_marked_tree",
    "set_aside_marked_tree",
    "write_atomic",
]

MARKER_NAME: Final = ".smidr-owned"
DELETING_PREFIX: Final = ".deleting-"
"""How a directory's name begins while what it holds is being deleted."""
_MARKER_TEXT: Final = "Created by smidr, which may delete this directory and all in it.\n"


def make_private_dir(path: Path) -> Path:
    """Create the directory, mode 0700 when it is new, and return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def make_marked_dir(path: Path, mode: int = 0o755) -> Path:
    """Create a directory that `remove_marked_tree` may delete later."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    marker = path / MARKER_NAME
    if not marker.exists():
        marker.write_text(_MARKER_TEXT, encoding="utf-8")
    return path


def remove_marked_tree(path: Path, root: Path) -> None:
    """Delete a directory that smidr made: strictly under `root`, marked, and no symlink.

    It is renamed first, so that nobody finds half of it. A missing directory is fine.
    Raises `InternalError` when a rule is broken, `OSError` when the system refuses.
    """
    doomed = set_aside_marked_tree(path, root)
    if doomed is not None:
        _make_writable(doomed)
        shutil.rmtree(doomed)


def set_aside_marked_tree(path: Path, root: Path) -> Path | None:
    """Rename a directory that may be deleted to `.deleting-*` beside it; return that path.

    The rules and errors of `remove_marked_tree`; None when the directory is missing.
    """
    if not path.is_symlink() and not path.exists():
        return None
    parent = path.parent.resolve()
    if path.is_symlink() or not path.is_dir() or not parent.is_relative_to(root.resolve()):
        raise InternalError(f"refusing to delete {path}: not a directory under {root}")
    if not (path / MARKER_NAME).is_file():
        raise InternalError(f"refusing to delete {path}: it has no {MARKER_NAME} file")
    # Within its directory: that works on a full disk, and for a tree that is read-only.
    doomed = parent / f"{DELETING_PREFIX}{secrets.token_hex(6)}"
    path.rename(doomed)
    with contextlib.suppress(OSError):
        os.utime(doomed)  # tells sweeps since when it has been going
    return doomed


def _make_writable(tree: Path) -> None:
    # Layer trees are read-only and recipes leave directories without write permission.
    os.chmod(tree, stat.S_IRWXU)
    for folder, names, _ in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            info = os.stat(path, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(path, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)


def write_atomic(path: Path, text: str | bytes, mode: int = 0o644) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename."""
    raw = text.encode() if isinstance(text, str) else text
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def as_host_error(error: OSError, what: str, where: Path) -> HostError:
    """The system's refusal in the user's words: `what` reads as "can't make a workspace"."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HostError(
            f"{what}: the disk is full",
            where=str(where),
            hint="Free some space there ('smidr artifacts clean' and 'smidr doctor' help), or "
            "point SMIDR_HOME or the 'directories' of the config to a bigger disk.",
            kind=FailureKind.DISK,
        )
    return HostError(
        f"{what}: {error.strerror or error}",
        where=str(error.filename or where),
        hint="The directory must exist, be writable for this user and lie on a healthy disk.",
    )


def open_untrusted(path: Path) -> FileIO:
    """Open a regular file for reading, following no symlink in its last part, never blocking.

    Raises `OSError` (ELOOP for a symlink, EINVAL for a FIFO, socket, directory or device).
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "not a regular file", str(path))
        return os.fdopen(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise
