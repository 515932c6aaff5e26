"""How many tasks and make jobs a build runs at once when its config does not say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from smidr_ci.config.models import ProjectConfig

__all__ = ["Parallelism", "host_cpus", "host_memory_bytes", "parallelism_for"]

_BYTES_PER_JOB = 2 * 1024**3
# C++ of today needs 1 to 4 GB per compiler at its worst; the average job needs far less. Two
# gigabytes per task and per job keep the usual product of both under the machine's memory.


@dataclass(frozen=True)
class Parallelism:
    """BB_NUMBER_THREADS and the jobs of PARALLEL_MAKE."""

    threads: int
    make_jobs: int


def host_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def host_memory_bytes() -> int:
    """The host's real memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parallelism_for(config: ProjectConfig, *, cpus: float, memory_bytes: int) -> Parallelism:
    """What the config says, else as many as the CPUs and the memory of the build allow."""
    fitting = max(1, min(int(cpus) or 1, memory_bytes // _BYTES_PER_JOB))
    return Parallelism(
        threads=config.build.bb_number_threads or fitting,
        make_jobs=config.build.parallel_make or fitting,
    )
