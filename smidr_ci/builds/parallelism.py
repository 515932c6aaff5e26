"""How much a build may use, and how many tasks and make jobs it runs at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smidr_ci.builds.cgroup import CGROUP, cpu_quota, memory_limit_bytes
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig

__all__ = [
    "Allowance",
    "Parallelism",
    "allowance_of",
    "host_cpus",
    "host_memory_bytes",
    "least",
    "parallelism_for",
]

_BYTES_PER_JOB = 2 * 1024**3
# C++ of today needs 1 to 4 GB per compiler at its worst; the average job needs far less. Two
# gigabytes per task and per job keep the usual product of both under the machine's memory.


@dataclass(frozen=True)
class Allowance:
    """Limits of one build; None is no limit but the host's."""

    cpus: float | None
    memory_bytes: int | None


def allowance_of(config: ProjectConfig, agent: AgentConfig) -> Allowance:
    """What the project asks for, within what the operator allows."""
    container, limits = config.container, agent.limits
    return Allowance(
        cpus=least(container.cpu_count, limits.cpus_per_build),
        memory_bytes=least(container.memory, limits.memory_per_build),
    )


_Amount = TypeVar("_Amount", int, float)


def least(one: _Amount | None, other: _Amount | None) -> _Amount | None:
    """The lower of two limits, of which either may be missing."""
    given = [amount for amount in (one, other) if amount is not None]
    return min(given) if given else None


@dataclass(frozen=True)
class Parallelism:
    """BB_NUMBER_THREADS and the jobs of PARALLEL_MAKE."""

    threads: int
    make_jobs: int


def host_cpus(cgroup: Path = CGROUP) -> int:
    """CPUs that this process may use: its affinity, and the quota of the container it runs in."""
    cpus, quota = len(os.sched_getaffinity(0)), cpu_quota(cgroup)
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def host_memory_bytes(cgroup: Path = CGROUP) -> int:
    """The host's real memory in bytes, or the limit of the container that smidr runs in."""
    real = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(real, memory_limit_bytes(cgroup) or real)


def parallelism_for(
    config: ProjectConfig,
    allowance: Allowance,
    *,
    cpus: int,
    memory_bytes: int,
    builds: int = 1,
) -> Parallelism:
    """What the config says, else as many as allowance and host (`cpus`, `memory_bytes`) let run.

    Where no limit says what the build may use, it gets an even share of a host that runs so many
    `builds` side by side.
    """
    usable_cpus = min(cpus, allowance.cpus or cpus / builds)
    usable_bytes = min(memory_bytes, allowance.memory_bytes or memory_bytes // builds)
    fitting = max(1, min(int(usable_cpus), usable_bytes // _BYTES_PER_JOB))
    return Parallelism(
        threads=config.build.bb_number_threads or fitting,
        make_jobs=config.build.parallel_make or fitting,
    )
