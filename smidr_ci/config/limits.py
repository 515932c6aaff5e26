"""The parts of `agent.yaml` about how much builds may use, and how long they are remembered."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from smidr_ci.config.base import Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import Count, MemorySize

__all__ = ["History", "Limits"]

Customer = Annotated[
    str,
    Matching(
        "customer",
        "[a-z0-9]([a-z0-9._-]{0,46}[a-z0-9])?",
        "a customer's name: 1 to 48 of a-z, 0-9 and . _ - (a letter or digit at both ends)",
    ),
]


class Limits(Model):
    """How much builds may use."""

    cpus_per_build: Annotated[float, Field(ge=0.1, le=4096), Strict(), Called("number")] | None = (
        None
    )
    """CPUs of each build; a project may ask for less. The default is no limit."""
    memory_per_build: MemorySize | None = None
    """Memory of each build; a project may ask for less. The default is no limit."""
    max_concurrent_builds: (
        Annotated[int, Field(ge=1, le=1000), Strict(), Called("number")] | None
    ) = None
    """Builds that the agent runs at once; the variable `SMIDR_MAX_CONCURRENT_BUILDS` wins over it.
    The default is as many as `cpus_per_build` goes into the host's CPUs; without that key, one per
    8 CPUs and 8G of memory. At least one."""
    max_queued_builds: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("number")] = 1000
    """Builds that may wait for the agent; it refuses more."""
    builds_per_customer: Count = 1
    """Builds of the same customer that run at once."""
    customers: Annotated[dict[Customer, Count], Called("names and numbers")] = Field(
        default_factory=dict
    )
    """Customers that may run another number of builds at once: `{acme: 2}`."""
    memory_budget: MemorySize | None = None
    """What the memory of all running builds may come to; a build without a limit counts as its
    even share, one with a higher limit than this runs alone. The default is 90 % of the host's."""
    max_memory_pressure: Annotated[float, Field(ge=0, le=100), Strict(), Called("percent")] = 20
    """Start no build when tasks of this host stood still for want of memory for more of the last
    ten seconds (PSI, `some avg10`); 0 does not look."""
    min_free_disk: MemorySize = 20 * 1024**3
    """Start no build when less is free on a file system that builds write to."""
    min_free_disk_percent: Annotated[float, Field(ge=0, le=99), Strict(), Called("percent")] = 10
    """The same in percent of the file system, for its bytes and for its inodes."""
    kept_workspaces_size: MemorySize = 100 * 1024**3
    """Disk for the workspaces of failed builds; the oldest go first. Warm ones have limits in
    `workspaces`."""
    kept_workspaces_count: Annotated[int, Field(ge=0, le=10_000), Strict(), Called("number")] = 10
    """How many workspaces of failed builds are kept."""


class History(Model):
    """How long the agent remembers builds that are over, with their logs and artifacts."""

    max_builds: Annotated[int, Field(ge=1, le=1_000_000), Strict(), Called("number")] = 10_000
    """Builds that are remembered; the oldest go first."""
    max_days: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("days")] | None = None
    """Forget builds after so many days; the default is never."""
    max_size: MemorySize = 200 * 1024**3
    """Disk for the logs and artifacts of all builds; the oldest go first."""
    keep_newest: Annotated[int, Field(ge=1, le=10_000), Strict(), Called("number")] = 5
    """The newest builds of each customer's project that stay whatever the limits say, and so does
    the newest that completed."""
    purge_after_days: Annotated[int, Field(ge=0, le=100_000), Strict(), Called("days")] = 7
    """What is forgotten is only hidden at first; after so many days it is removed for good."""
