"""What a runner says of itself, read leniently: its words may change with each version.

actions/runner: Runner.Listener/Runner.cs and JobDispatcher.cs for the words, `_diag/Worker_*.log`
for a job that was begun.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.text import printable

__all__ = ["Observation", "has_worker", "observe"]

_LISTENING: Final = re.compile(r"listening for jobs", re.IGNORECASE)
_RUNNING: Final = re.compile(r"running job: *(.{1,400})", re.IGNORECASE)
_COMPLETED: Final = re.compile(r"job .{0,400}? completed with result: *(\w{1,40})", re.IGNORECASE)
_VERSION: Final = re.compile(r"current runner version: *'([0-9.]{1,32})'", re.IGNORECASE)
_LONGEST_JOB: Final = 200
_MOST_ENTRIES: Final = 1000


@dataclass(frozen=True)
class Observation:
    """One look at a runner that is alive, or was."""

    is_listening: bool = False
    had_job: bool = False
    is_over: bool = False
    """Its one job has ended; nothing is left to do but go."""
    job: str = ""
    version: str = ""


def observe(output: str, *, has_worker: bool = False) -> Observation:
    """Put together what the output says, and whether there is a log of a job's worker."""
    job, had_job, is_over = "", has_worker, False
    for line in output.splitlines():
        if running := _RUNNING.search(line):
            job, had_job = job or printable(running[1]).strip()[:_LONGEST_JOB], True
        elif _COMPLETED.search(line):  # a job's name may hold these words, too
            had_job = is_over = True
    version = _VERSION.search(output)
    return Observation(
        is_listening=_LISTENING.search(output) is not None,
        had_job=had_job,
        is_over=is_over,
        job=job,
        version=version[1] if version else "",
    )


def has_worker(root: Path) -> bool:
    """Whether the runner with this root has begun a job, which may have filled it with files."""
    try:
        with os.scandir(root / "_diag") as found:
            for number, entry in enumerate(found):
                if entry.name.startswith("Worker_"):
                    return True
                if number >= _MOST_ENTRIES:
                    break
    except OSError:
        pass
    return False
