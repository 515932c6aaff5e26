"""The control directory: plan in; console, events and result out.

Recipes of the same build can write there too, so no symlink is ever followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from typing import Any

__all__ = ["Control", "append_line", "open_for_append"]

_MAX_PLAN_BYTES = 16 * 1024 * 1024
_LAST_BYTES = 4096


def open_for_append(path: str) -> int:
    """A descriptor that appends to a regular file, made when missing. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(22, "not a regular file", path)
    os.set_blocking(fd, True)
    return fd


def append_line(fd: int, record: dict[str, Any]) -> int:
    """Write one JSON object and a newline in one write(2); return how many bytes that were."""
    raw = (json.dumps(record, separators=(",", ":"), default=str) + "\n").encode("ascii")
    return os.write(fd, raw)


class Control:
    """One build's control directory, seen from inside."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._events = -1

    def path(self, name: str) -> str:
        """Where the file lies."""
        return os.path.join(self.folder, name)

    def read_plan(self) -> dict[str, Any]:
        """The content of `plan.json`. Raises OSError, ValueError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self.path("plan.json"), flags), "rb") as file:
            plan = json.loads(file.read(_MAX_PLAN_BYTES))
        if not isinstance(plan, dict):
            raise TypeError("plan.json is not an object")
        return plan

    def open_console(self) -> int:
        """A descriptor for `console.log`, for BitBake's own output."""
        return open_for_append(self.path("console.log"))

    def event(self, name: str, **fields: Any) -> None:
        """Add an event of the driver's own to `events.jsonl`; trouble with it stops nothing."""
        with contextlib.suppress(OSError):
            if self._events < 0:
                self._events = open_for_append(self.path("events.jsonl"))
            append_line(self._events, {"t": round(time.time(), 3), "event": name, **fields})

    def last_event(self) -> dict[str, Any]:
        """The last record of `events.jsonl`; empty when it can't be read."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.path("events.jsonl"), flags)
            with open(fd, "rb") as file:
                start = max(0, os.fstat(fd).st_size - _LAST_BYTES)
                lines = os.pread(file.fileno(), _LAST_BYTES, start).splitlines()
            record = json.loads(lines[-1])
        except (OSError, ValueError, IndexError):
            return {}
        return record if isinstance(record, dict) else {}

    def write_result(self, result: dict[str, Any]) -> None:
        """Put `result.json` in place as a whole. Raises OSError."""
        raw = (json.dumps(result, indent=1, sort_keys=True) + "\n").encode()
        temporary = self.path(f".result.{os.getpid()}.json")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        remove(temporary)
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path("result.json"))


def remove(path: str) -> None:
    """Unlink, fine when there is nothing."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def read_small(path: str, limit: int = 65536) -> str | None:
    """Text of a small file of the system's; None when it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return None


def names_in(folder: str) -> list[str]:
    """Entries of a directory; none when it can't be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
