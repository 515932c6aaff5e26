"""A real file system that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_TRIES = 100


@contextmanager
def small_disk(place: Path, size: str = "1m") -> Iterator[Path]:
    """A tmpfs of this size at `place`; skips the test where that can't be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "smidr-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    try:
        yield place
    finally:
        # Lazily: a detached deletion may still be at it.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with open(disk / "filler", "ab", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            return


def make_full(disk: Path, *, names: bool = False) -> None:
    """Shrink a `small_disk` to what it holds; with `names` no empty file can be made either."""
    done = None
    for _ in range(_TRIES):  # others may write meanwhile
        found = os.statvfs(disk)
        options = f"remount,size={(found.f_blocks - found.f_bfree) * found.f_frsize}"
        options += f",nr_inodes={found.f_files - found.f_ffree}" if names else ""
        done = subprocess.run(["mount", "-o", options, str(disk)], check=False, capture_output=True)
        if done.returncode == 0:
            return
    raise AssertionError(done)


def make_roomy(disk: Path, size: str = "64m", names: int = 100_000) -> None:
    """Grow it again."""
    options = f"remount,size={size},nr_inodes={names}"
    subprocess.run(["mount", "-o", options, str(disk)], check=True)
