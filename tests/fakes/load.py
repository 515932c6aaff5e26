"""A busy machine: processes that compute and write until the block ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["busy_machine"]

_COMPUTE = """
while True:
    sum(range(100_000))
"""
_WRITE = """
import os, sys
while True:
    with open(sys.argv[1], "wb") as out:
        for _ in range(32):
            out.write(os.urandom(1 << 20))
        out.flush()
        os.fsync(out.fileno())
"""


@contextmanager
def busy_machine(folder: Path, processors: int = 2) -> Iterator[None]:
    """Keep so many processors and the disk of `folder` busy."""
    programs = [[_COMPUTE]] * processors + [[_WRITE, str(folder / "load")]]
    running = [subprocess.Popen([sys.executable, "-c", *program]) for program in programs]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
        (folder / "load").unlink(missing_ok=True)
