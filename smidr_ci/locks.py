"""Locks that the kernel holds for a process and drops when it dies: nothing to clean after a crash.

The files stay; only the lock on them means anything.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from smidr_ci.clock import Clock

__all__ = ["KernelLock", "is_locked", "take_lock", "try_flock", "try_lock"]

_TRIES: Final = 20
_PAUSE_S: Final = 0.01


class KernelLock:
    """An exclusive flock(2) on a file; held until `release` or the end of this process."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def try_lock(path: Path) -> KernelLock | None:
    """Take the lock on the file, which is created when missing; None when somebody holds it.

    Raises `OSError` (ELOOP when the file is a symlink).
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            is_ours = try_flock(fd, fcntl.LOCK_EX)
            if is_ours and _is_at(path, fd):
                return KernelLock(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if not is_ours:
            return None


def take_lock(path: Path, clock: Clock) -> KernelLock | None:
    """`try_lock`, but patient with those who only look (`is_locked`): tries for 0.2 s."""
    for _ in range(_TRIES):
        lock = try_lock(path)
        if lock is not None:
            return lock
        clock.sleep(_PAUSE_S)
    return None


def _is_at(path: Path, fd: int) -> bool:
    # The last holder may have deleted or renamed the file between our open and our lock.
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether some process holds the file's lock; a missing file is not locked.

    It looks by taking a shared lock for an instant, which can make a `try_lock` fail meanwhile.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not try_flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def try_flock(fd: int, how: int) -> bool:
    """Take the lock LOCK_EX or LOCK_SH on an open file; False when somebody is in the way."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    return True
