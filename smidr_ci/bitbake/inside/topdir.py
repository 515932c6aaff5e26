"""The build directory's locks and sockets: free before BitBake starts, gone after it ended."""

from __future__ import annotations

import contextlib
import fcntl
import os

from .control import remove

__all__ = ["forget_code_cache", "is_in_use", "remove_leftovers", "server_pid"]

_LEFTOVERS = ("bitbake.lock", "bitbake.sock", "hashserve.sock")


def is_in_use(topdir: str) -> bool:
    """Whether another BitBake server holds `bitbake.lock`; the kernel frees it when one dies."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(topdir, "bitbake.lock"), flags)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_leftovers(topdir: str) -> None:
    """Remove what a server that is gone left; a client would wait for it for minutes."""
    for name in _LEFTOVERS:
        with contextlib.suppress(OSError):  # a directory of that name is the project's own
            remove(os.path.join(topdir, name))


def forget_code_cache(topdir: str) -> None:
    """Remove what BitBake remembers of Python and shell code, so that it finds its parse cache.

    From 2.12 on the cache's name depends on what is known of the modules in `lib/oe`, and that is
    less when it comes from this file (bb/codeparser.py: `var_execs` are not kept): a second run
    would parse every recipe again. Without the file it costs a second or two.
    """
    with contextlib.suppress(OSError):
        remove(os.path.join(topdir, "cache", "bb_codeparser.dat"))


def server_pid(topdir: str) -> int | None:
    """What `bitbake.lock` says: the server writes its pid there, and its address if it has one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(topdir, "bitbake.lock"), flags)
    except OSError:
        return None
    with open(fd, "rb") as lock:
        fields = lock.read(64).split()
    return int(fields[0]) if fields and fields[0].isdigit() else None
