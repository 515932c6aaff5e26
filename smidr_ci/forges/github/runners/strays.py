"""Processes of a runner whose keeper is gone: found by what they have of its directory."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.forges.github.runners.keeper import identity

__all__ = ["MARK", "end_strays", "is_alive", "open_process"]

log = logging.getLogger(__name__)

MARK: Final = "SMIDR_RUNNER_DIRECTORY"
"""A variable of all that a job starts, unless it clears its environment."""
_ROUNDS: Final = 200
_PAUSE_S: Final = 0.05


def open_process(known: dict[str, object]) -> int | None:
    """A pidfd of the process that `keeper.identity` described; None when it has ended."""
    pid = known.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 1:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    # Looked at after it was opened: from here on the number can't be another process's.
    with contextlib.suppress(OSError, IndexError, ValueError):
        if identity(pid) == {name: known.get(name) for name in ("pid", "started", "boot")}:
            return handle
    os.close(handle)
    return None


def is_alive(handle: int) -> bool:
    """Whether the process of a pidfd has not ended."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return not poll.poll(0)


def end_strays(folder: Path, clock: Clock) -> bool:
    """Kill what still works in the directory, and what it started; whether nothing is left."""
    for _ in range(_ROUNDS):
        found = list(_of(folder))
        if not found:
            return True
        for handle in found:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        clock.sleep(_PAUSE_S)
    log.warning("processes of a runner's job in %s can't be ended", folder)
    return False


def _of(folder: Path) -> Iterator[int]:
    """Open pidfds; the caller closes them."""
    mark = f"{MARK}={folder}".encode()
    prefix = f"{folder}/"
    owner = _owner_of(folder)
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            handle = os.pidfd_open(int(name))
        except OSError:
            continue
        if _belongs(name, owner, mark, prefix) and is_alive(handle):
            yield handle
        else:
            os.close(handle)


def _owner_of(folder: Path) -> int:
    try:
        return (folder / "root").lstat().st_uid
    except OSError:
        return os.geteuid()


def _belongs(pid: str, owner: int, mark: bytes, prefix: str) -> bool:
    with contextlib.suppress(OSError):
        if os.stat(f"/proc/{pid}").st_uid != owner:
            return False  # such as the shell of who looks what a job does
    for link in ("cwd", "exe", "root"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/{link}").startswith(prefix):
                return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return mark in file.read(1 << 20).split(b"\0")
    return False
