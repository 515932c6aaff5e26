"""Jobs that wait for a runner of this host, as GitHub's lists tell it.

A webhook or an entry of the App's deliveries only says in which repository to look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from smidr_ci.clock import Clock
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.repositories import Repositories
from smidr_ci.forges.github.runs import WorkflowRuns
from smidr_ci.text import printable

__all__ = ["Demand", "WaitingJob"]

log = logging.getLogger(__name__)

_WARM_S: Final = 900.0
"""How long a repository is looked at each time after something was heard of it."""
_COLD_PER_LOOK: Final = 5
_MOST_JOBS: Final = 200


@dataclass(frozen=True)
class WaitingJob:
    """One queued job, with what is needed to decide about it."""

    repository: str
    job_id: int
    name: str
    run: Mapping[str, Any]
    """The workflow run as the API tells it."""


class Demand:
    """The waiting jobs of one registration; `look` belongs to one thread, the rest to any."""

    def __init__(
        self,
        repositories: Repositories,
        runs: WorkflowRuns,
        takes: Callable[[tuple[str, ...]], bool],
        clock: Clock,
    ) -> None:
        """`takes` says whether a job that asks for these labels is for this host."""
        self._repositories = repositories
        self._runs = runs
        self._takes = takes
        self._clock = clock
        self._lock = threading.Lock()
        self._warm: dict[str, float] = {}
        self._waiting: dict[str, tuple[WaitingJob, ...]] = {}
        self._next_cold = 0
        self.problem = ""
        """Why the last look saw less than there is; empty when it saw all."""

    def heard(self, repository: str) -> None:
        """Something happened to a job of this repository."""
        if self._repositories.covers(repository):
            with self._lock:
                self._warm[repository] = self._clock.monotonic() + _WARM_S

    def look(self) -> list[WaitingJob]:
        """Ask GitHub; jobs of repositories that it does not tell about now are as before.

        Raises `RateLimitedError`: nothing may be asked then.
        """
        problem = ""
        for repository in self._chosen():
            try:
                self._waiting[repository] = tuple(self._jobs(repository))
            except RateLimitedError:
                raise
            except ForgeError as error:
                problem = str(error)
                if error.status in {403, 404, 410}:  # gone, or none of ours any more
                    self._waiting.pop(repository, None)
                continue
            if self._waiting[repository]:
                self.heard(repository)
        self.problem = problem
        return [job for jobs in self._waiting.values() for job in jobs]

    def _chosen(self) -> list[str]:
        """Those with news or jobs, and some of the others in turn: each look costs calls."""
        try:
            known = self._repositories.known()
        except RateLimitedError:
            raise
        except ForgeError as error:
            log.warning("can't list the repositories: %s", error)
            known = ()
        now = self._clock.monotonic()
        with self._lock:
            self._warm = {name: until for name, until in self._warm.items() if until > now}
            chosen = dict.fromkeys([*self._warm, *(k for k, jobs in self._waiting.items() if jobs)])
        cold = [name for name in known if name not in chosen]
        for _ in range(min(_COLD_PER_LOOK, len(cold))):
            self._next_cold += 1
            chosen[cold[self._next_cold % len(cold)]] = None
        return list(chosen)

    def _jobs(self, repository: str) -> Iterator[WaitingJob]:
        for count, (run, job) in enumerate(self._runs.waiting(repository)):
            if count >= _MOST_JOBS:
                log.warning("%s has more than %d waiting jobs", repository, _MOST_JOBS)
                return
            labels = job.get("labels")
            texts = tuple(map(str, labels)) if isinstance(labels, list) else ()
            if self._takes(texts):
                name = printable(str(job.get("name") or ""))[:300]
                yield WaitingJob(repository, int(job.get("id") or 0), name, run)
