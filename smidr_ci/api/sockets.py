"""Unix sockets at paths of any length. Imports nothing heavy: every command connects."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["connect_unix", "short_path"]

_LONGEST_PATH: Final = 107
"""unix(7): sun_path has 108 bytes with the zero at its end."""


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of the same socket that fits into an address; good inside of the block."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connect_unix(path: Path, timeout_s: float | None = None) -> socket.socket:
    """A connection to a unix socket; raises `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with short_path(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection
