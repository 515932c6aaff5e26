"""Runners for waiting jobs that GitHub's lists show: a source of what is wanted for a fleet."""

from __future__ import annotations

from typing import NamedTuple

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.runners.policy import JobPolicy
from smidr_ci.forges.github.runners.waiting import Demand, WaitingJob

__all__ = ["JitSource", "Wanted"]


class Wanted(NamedTuple):
    """How many runners should be alive, and what keeps it from being known better."""

    runners: int
    problem: str = ""
    refused: int = 0
    """Jobs that wait with our labels and get no runner."""
    counts_busy: bool = False
    """Whether the runners that were said to be busy are among those wanted."""


class JitSource:
    """Counts jobs and does not pair them with runners: GitHub gives a job to any that fits."""

    def __init__(self, demand: Demand, policy: JobPolicy) -> None:
        self._demand = demand
        self._policy = policy

    def heard(self, repository: str) -> None:
        """Something happened to a job there."""
        self._demand.heard(repository)

    def wanted(self, busy: int) -> Wanted:
        """Waiting jobs, and those at work; raises `RateLimitedError`."""
        waiting = self._demand.look()
        self._policy.begin_look()
        allowed, problem = 0, self._demand.problem
        for job in waiting:
            try:
                allowed += self._is_allowed(job)
            except RateLimitedError:
                raise
            except ForgeError as error:
                problem = str(error)
        return Wanted(allowed + busy, problem, len(waiting) - allowed, counts_busy=True)

    def _is_allowed(self, job: WaitingJob) -> bool:
        if not self._policy.is_needed:
            return True
        return self._policy.decide(job.repository, job.run, job.name).is_allowed
