"""How many builds may run at once, and what each of them counts for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.limits import Limits
from smidr_ci.errors import ConfigError

__all__ = ["MAX_BUILDS_VARIABLE", "Amount", "Policy", "Waiting", "policy_of"]

MAX_BUILDS_VARIABLE: Final = "SMIDR_MAX_CONCURRENT_BUILDS"

_GIB: Final = 1024**3
_MOST_BUILDS: Final = 1000
_USUAL_CPUS: Final = 8
_USUAL_BYTES: Final = 8 * _GIB
# A build's tasks times the jobs of each make it slow to gain from more than eight CPUs of its own,
# and C++ linkers and Rust make a build that has less than 8 GiB fail.
_MEMORY_SHARE: Final = 0.9


@dataclass(frozen=True)
class Waiting:
    """A build that wants to start."""

    build_id: str
    customer: str
    position: int
    """Order of arrival: the lowest has waited longest."""
    memory_bytes: int | None = None
    """What its container may use; None is no limit."""
    cpus: float | None = None
    """CPUs that its container may use; None is no limit."""


@dataclass(frozen=True)
class Amount:
    """Memory in bytes and thousandths of CPUs, both whole so that sums come out even."""

    memory_bytes: int = 0
    millicpus: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.memory_bytes + other.memory_bytes, self.millicpus + other.millicpus)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.memory_bytes - other.memory_bytes, self.millicpus - other.millicpus)

    def fits(self, room: Amount) -> bool:
        """Whether there is room for it."""
        return self.memory_bytes <= room.memory_bytes and self.millicpus <= room.millicpus


@dataclass(frozen=True)
class Policy:
    """The operator's limits, with all defaults settled for this host."""

    max_builds: int
    """Of all customers together; at least 1."""
    memory_bytes: int
    """What the running builds' limits may come to together."""
    cpus: float | None = None
    """The same for CPUs; None does not count them."""
    per_customer: int = 1
    customers: Mapping[str, int] = field(default_factory=dict)
    """Customers with a limit of their own."""

    def limit_of(self, customer: str) -> int:
        """How many builds of the customer may run at once."""
        return self.customers.get(customer, self.per_customer)

    @property
    def budget(self) -> Amount:
        """What all running builds may count for together."""
        return Amount(self.memory_bytes, _millicpus(self.cpus or 0.0))

    def need_of(self, build: Waiting) -> Amount:
        """What the build counts for: its limits, else an even share; never more than all there is.

        So a build with larger limits than the host has runs alone.
        """
        budget = self.budget
        share = Amount(budget.memory_bytes // self.max_builds, budget.millicpus // self.max_builds)
        memory = share.memory_bytes if build.memory_bytes is None else build.memory_bytes
        cpus = share.millicpus if build.cpus is None else _millicpus(build.cpus)
        return Amount(min(memory, budget.memory_bytes), min(cpus, budget.millicpus))

    def check_fits(self, build: Waiting) -> str | None:
        """What to tell who orders a build with larger limits than all builds have together.

        It is taken nevertheless, since a limit is not what a build uses, and runs alone.
        """
        if (build.memory_bytes or 0) <= self.memory_bytes:
            return None
        return (
            f"may use {(build.memory_bytes or 0) / _GIB:.1f} GiB of memory, and all builds of this"
            f" host together {self.memory_bytes / _GIB:.1f} GiB: it runs alone"
        )


def policy_of(
    agent: AgentConfig, environ: Mapping[str, str], *, cpus: int, memory_bytes: int
) -> Policy:
    """The limits for a host with so many CPUs and so much real memory.

    SMIDR_MAX_CONCURRENT_BUILDS wins over agent.yaml. Raises `ConfigError` when it is no number.
    """
    limits = agent.limits
    budget = limits.memory_budget or int(memory_bytes * _MEMORY_SHARE)
    chosen = _from_environment(environ) or limits.max_concurrent_builds
    return Policy(
        max_builds=chosen or _usual_builds(limits, cpus, budget),
        memory_bytes=budget,
        # Whoever chose a number of builds has thought of CPUs; sharing them only takes longer.
        cpus=None if chosen else float(cpus),
        per_customer=limits.builds_per_customer,
        customers=dict(limits.customers),
    )


def _usual_builds(limits: Limits, cpus: int, memory_bytes: int) -> int:
    if limits.cpus_per_build is not None:
        fitting = _millicpus(cpus) // _millicpus(limits.cpus_per_build)
    else:
        fitting = min(cpus // _USUAL_CPUS, memory_bytes // _USUAL_BYTES)
    return min(max(1, fitting), _MOST_BUILDS)


def _from_environment(environ: Mapping[str, str]) -> int | None:
    text = environ.get(MAX_BUILDS_VARIABLE, "").strip()
    if not text:
        return None
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_MOST_BUILDS))
    if not is_number or not 1 <= int(text) <= _MOST_BUILDS:
        raise ConfigError(
            f"is {text[:40]!r}, which is no number of builds",
            where=MAX_BUILDS_VARIABLE,
            hint=f"Set it to a whole number from 1 to {_MOST_BUILDS}, or not at all.",
        )
    return int(text)


def _millicpus(cpus: float) -> int:
    return math.ceil(round(cpus * 1000, 3))
