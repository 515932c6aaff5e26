"""What Prometheus gets that is looked up when it asks: queue, history, disks, deliveries."""

from __future__ import annotations

import logging
import os
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.usage import DirectorySizes
from smidr_ci.builds.store import BuildStore
from smidr_ci.errors import SmidrError

__all__ = ["Figures"]

_MAX_RECEIVERS: Final = 50
_log: Final = logging.getLogger(__name__)

Families = Callable[[], Iterator[Metric]]


class Figures(Collector):
    """A custom collector; a part that can't be read is left out and logged."""

    def __init__(
        self,
        status: Callable[[], AgentStatus],
        store: BuildStore,
        directories: Callable[[], Mapping[str, Path]],
        sizes: DirectorySizes,
    ) -> None:
        self._status = status
        self._store = store
        self._directories = directories
        self._sizes = sizes

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not ask the agent when it is made."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families."""
        parts: tuple[Families, ...] = (self._agent, self._history, self._caches, self._disks)
        for part in parts:
            try:
                yield from list(part())
            except (SmidrError, OSError) as error:
                _log.warning("some metrics are missing: %s", error)

    def _agent(self) -> Iterator[Metric]:
        status = self._status()
        info = InfoMetricFamily("smidr", "The agent.")
        info.add_metric((), {"version": status.version})
        yield info
        for name, text, value in (
            ("smidr_queue_length", "Builds that wait.", len(status.queued)),
            ("smidr_builds_running", "Builds at work.", _at_work(status)),
            ("smidr_builds_running_limit", "Builds that may be at work.", status.max_running),
            ("smidr_draining", "Whether the agent takes nothing new.", status.is_draining),
            ("smidr_problems", "What keeps the agent from its work.", len(status.problems)),
            ("smidr_start_time_seconds", "When it started.", status.started.timestamp()),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))
        yield from _deliveries(status)
        yield from _runners(status)

    def _history(self) -> Iterator[Metric]:
        builds = GaugeMetricFamily(
            "smidr_builds", "Builds in history.", labels=("state", "failure_kind")
        )
        for (state, kind), count in sorted(
            self._store.totals().items(), key=lambda item: (item[0][0], item[0][1] or "")
        ):
            builds.add_metric((state, kind or ""), count)
        yield builds

    def _caches(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "smidr_cache_size_bytes", "Disk that is used, measured now and then.", labels=("cache",)
        )
        for name, size in self._sizes.known().items():
            family.add_metric((name,), size)
        yield family

    def _disks(self) -> Iterator[Metric]:
        """One series per file system, under the name of the first directory that it has."""
        free = GaugeMetricFamily("smidr_disk_free_bytes", "Free disk.", labels=("directory",))
        size = GaugeMetricFamily("smidr_disk_size_bytes", "Size of disk.", labels=("directory",))
        seen = set()
        for name, path in self._directories().items():
            try:
                device, found = os.stat(path).st_dev, os.statvfs(path)
            except FileNotFoundError:
                continue
            if device not in seen:
                seen.add(device)
                free.add_metric((name,), found.f_bavail * found.f_frsize)
                size.add_metric((name,), found.f_blocks * found.f_frsize)
        yield free
        yield size


def _runners(status: AgentStatus) -> Iterator[Metric]:
    """Official runners that the agent starts; a series per registration, of which there are few."""
    counts = GaugeMetricFamily(
        "smidr_runners",
        "Official runners that the agent starts, by what they do; wanted, and free, are how many.",
        labels=("registration", "state"),
    )
    versions = InfoMetricFamily(
        "smidr_official_runner", "The official runner that is started.", labels=("registration",)
    )
    for item in status.registrations[:_MAX_RECEIVERS]:
        for state, count in item.runners.items():
            counts.add_metric((item.name, state), count)
        if item.runner_version:
            versions.add_metric((item.name,), {"version": item.runner_version})
    yield counts
    yield versions


def _at_work(status: AgentStatus) -> int:
    """Builds that share a run are one at work."""
    return status.taken or len(status.running)


def _deliveries(status: AgentStatus) -> Iterator[Metric]:
    waiting: Tally[str] = Tally()
    given_up: Tally[str] = Tally()
    for number, item in enumerate(status.outbox):
        name = item.receiver[:64] if number < _MAX_RECEIVERS else "other"
        waiting[name] += item.waiting
        given_up[name] += item.given_up
    for family, tally in (
        (
            GaugeMetricFamily(
                "smidr_outbox_waiting", "Deliveries that wait.", labels=("receiver",)
            ),
            waiting,
        ),
        (
            GaugeMetricFamily(
                "smidr_outbox_given_up", "Deliveries given up.", labels=("receiver",)
            ),
            given_up,
        ),
    ):
        for name, count in tally.items():
            family.add_metric((name,), count)
        yield family
