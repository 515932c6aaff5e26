"""A real Python process that can be killed in the middle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the script with `sys.argv[1:]` = arguments; killed (SIGKILL) at the latest on leaving.

    The script prints lines to say how far it is; read them from `.stdout`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def line_from(process: subprocess.Popen[str]) -> str:
    """The next line that the child prints; empty when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL, and wait until the kernel has taken everything back."""
    process.kill()
    process.wait()


def peak_kib(pid: int) -> int:
    """The most memory that a process has had (VmHWM, proc(5)), in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
