"""Names for sockets that fit into an address, however long the temporary directory's path is."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["address_for", "socket_dir"]

_LONGEST = 107
"""unix(7): `sun_path` has 108 bytes with the zero at its end."""


@pytest.fixture
def socket_dir(tmp_path: Path) -> Iterator[Path]:
    """`tmp_path` under a name that is short; other processes of this user may use it too."""
    handle = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _name(handle)
    finally:
        os.close(handle)


def address_for(owner: object, path: Path) -> Path:
    """The path, or a shorter name that is good as long as `owner` lives."""
    if len(os.fsencode(path)) <= _LONGEST:
        return path
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    weakref.finalize(owner, os.close, handle)
    return _name(handle) / path.name


def _name(handle: int) -> Path:
    return Path(f"/proc/{os.getpid()}/fd/{handle}")
