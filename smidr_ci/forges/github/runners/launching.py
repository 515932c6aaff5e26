"""Keepers of runners: how they are started, and which of them run."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from smidr_ci.forges.github.runners import keeper
from smidr_ci.forges.github.runners.strays import is_alive

__all__ = ["keeper_of", "keepers", "launch"]

_START_S: Final = 30.0


def keeper_of(folder: Path) -> int:
    """A pidfd of the keeper of this directory; -1 when none runs."""
    found = -1
    for handle, path in keepers():
        if path == folder and found < 0:
            found = handle
        else:
            os.close(handle)
    return found


def keepers() -> Iterator[tuple[int, Path]]:
    """All keepers that run: pidfds, which the caller closes, and the directories they keep."""
    program = os.fsencode(keeper.__file__)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(name))
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read(16384).split(b"\0")
                is_one = len(words) > 3 and words[-3] == program and is_alive(handle)
            except BaseException:
                os.close(handle)
                raise
            if is_one:
                yield handle, Path(os.fsdecode(words[-2]))
            else:
                os.close(handle)


def launch(folder: Path, order: bytes) -> dict[str, Any]:
    """Start the keeper, give it its order, and read what it says of the start.

    `{"pid": N}`, and the keeper runs; else `{"error": TEXT}` or nothing, and it does not.
    """
    order_read, order_write = os.pipe2(os.O_CLOEXEC)
    answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", keeper.__file__, str(folder)],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, order_read, 0),
                (os.POSIX_SPAWN_DUP2, answer_write, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(order_read)
        os.close(answer_write)
        order_read = answer_write = -1
        with os.fdopen(order_write, "wb") as file:
            order_write = -1
            with contextlib.suppress(BrokenPipeError):  # it ended already
                file.write(order)
                file.flush()
        said = _answer(answer_read)
        if "pid" not in said:
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so the number is its own
            os.waitpid(pid, 0)
        return said
    finally:
        for fd in (order_read, order_write, answer_read, answer_write):
            if fd >= 0:
                os.close(fd)


def _answer(fd: int) -> dict[str, Any]:
    poll, raw = select.poll(), b""
    poll.register(fd, select.POLLIN)
    while poll.poll(_START_S * 1000) and (chunk := os.read(fd, 4096)):
        raw += chunk
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
