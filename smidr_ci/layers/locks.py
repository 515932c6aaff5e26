"""Locks that the kernel holds and drops with the process, so that none is ever stale.

`fcntl.flock` and not filelock: shared locks are needed, a git child must be able to inherit the
lock (so that it outlives a killed parent only as long as its writer does), and the import is free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smidr_ci.cancel import CancelToken
from smidr_ci.locks import try_flock

__all__ = ["hold", "hold_now"]

_POLL_S: Final = 0.05
_PATIENCE: Final = 40


@contextmanager
def hold(
    path: Path,
    cancel: CancelToken,
    *,
    shared: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Wait for the lock on `path` and hold it; yields the descriptor, for children to inherit.

    `waiting` is called once when it takes longer than two seconds. Raises `CancelledError`.
    """
    fd = _open(path)
    try:
        tries = 0
        while not _try(fd, shared=shared):
            tries += 1
            if tries == _PATIENCE:
                waiting()
            cancel.wait(_POLL_S)
            cancel.raise_if_cancelled()
        yield fd
    finally:
        os.close(fd)


@contextmanager
def hold_now(path: Path, *, shared: bool = False) -> Iterator[int | None]:
    """Hold the lock if nobody else does; yields None when somebody does."""
    fd = _open(path)
    try:
        yield fd if _try(fd, shared=shared) else None
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try(fd: int, *, shared: bool) -> bool:
    return try_flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
