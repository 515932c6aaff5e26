"""The agent's figures for Prometheus. No label holds a build id; the number of series is bounded.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.figures import Figures
from smidr_ci.api.usage import DirectorySizes
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.store import BuildStore

__all__ = ["Metrics"]

_MAX_PROJECTS: Final = 100
_MAX_CALLS: Final = 200
_MAX_RUNS: Final = 1000
_STAGES: Final = frozenset(str(state) for state in BuildState)
_MINUTE: Final = 60.0
_BUCKETS: Final = (
    *(1.0, 5.0, 15.0, 30.0),
    *(_MINUTE * minutes for minutes in (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 1440)),
)


class Metrics:
    """Thread-safe. `directories` are the caches by name, such as `sstate`, and `home`."""

    def __init__(
        self,
        status: Callable[[], AgentStatus],
        store: BuildStore,
        directories: Callable[[], Mapping[str, Path]],
        sizes: DirectorySizes,
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._projects: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._runs: deque[str] = deque(maxlen=_MAX_RUNS)
        self._calls_seen: set[tuple[str, str]] = set()
        registry.register(Figures(status, store, directories, sizes))
        ProcessCollector(registry=registry)
        self._finished = Counter(
            "smidr_builds_finished",
            "Builds that ended since the agent started.",
            ("state", "failure_kind"),
            registry=registry,
        )
        self._stages = Histogram(
            "smidr_build_stage_seconds",
            "How long the stages of builds took.",
            ("stage",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._waited = Histogram(
            "smidr_build_wait_seconds",
            "How long builds waited for their start.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._sstate = Counter(
            "smidr_sstate_objects",
            "Shared state objects that builds looked for, by what came of it.",
            ("result",),
            registry=registry,
        )
        self._task_seconds = Counter(
            "smidr_task_seconds",
            "Time of tasks that ran, and an estimate of that of tasks which shared state spared.",
            ("result",),
            registry=registry,
        )
        self._restored = Counter(
            "smidr_sstate_restored_bytes",
            "Packed size of what builds took from shared state on this host.",
            registry=registry,
        )
        self._reuse = Gauge(
            "smidr_sstate_reuse_ratio",
            "Share of the wanted shared state that the project's last build found.",
            ("customer", "project"),
            registry=registry,
        )
        self._calls = Counter(
            "smidr_forge_calls",
            "Calls to forges.",
            ("forge", "operation", "outcome"),
            registry=registry,
        )

    def finished(self, record: BuildRecord) -> None:
        """Count a build that ended; from any thread, once per build."""
        self._finished.labels(str(record.state), str(record.failure_kind or "")).inc()
        if record.started is not None:
            waited = (record.started - record.created).total_seconds()
            self._waited.observe(max(0.0, waited))
        for stage in record.stages:
            if stage.ended is not None:
                name = stage.name if stage.name in _STAGES else "other"
                took = (stage.ended - stage.started).total_seconds()
                self._stages.labels(name).observe(max(0.0, took))
        if record.shared_run and self._has_counted(record.shared_run):
            return  # it was built once
        self._count_sstate(record)
        if record.work is not None:
            self._task_seconds.labels("executed").inc(max(0.0, record.work.executed_s))
            self._task_seconds.labels("spared").inc(max(0.0, record.work.spared_s))
            self._restored.inc(max(0, record.work.restored_bytes))

    def _has_counted(self, run_id: str) -> bool:
        with self._lock:
            if run_id in self._runs:
                return True
            self._runs.append(run_id)
            return False

    def forge_called(self, forge: str, operation: str, outcome: str) -> None:
        """Count a call: `gitlab`, `patch-trace`, `ok` or `error` or another short word."""
        with self._lock:
            key = (operation, outcome)
            if key not in self._calls_seen:
                if len(self._calls_seen) >= _MAX_CALLS:
                    operation = outcome = "other"
                else:
                    self._calls_seen.add(key)
        self._calls.labels(forge, operation, outcome).inc()

    def render(self) -> bytes:
        """Everything, in Prometheus' text format; blocks for some milliseconds."""
        return generate_latest(self._registry)

    def _count_sstate(self, record: BuildRecord) -> None:
        found = record.sstate
        if found is None:
            return
        for result, count in (
            ("wanted", found.wanted),
            ("local", found.local),
            ("mirror", found.mirrors),
            ("missed", found.missed),
            ("current", found.current),
        ):
            self._sstate.labels(result).inc(max(0, count))
        if found.wanted > 0:
            ratio = (found.local + found.mirrors) / found.wanted
            self._note_reuse((record.customer, record.project), min(1.0, ratio))

    def _note_reuse(self, project: tuple[str, str], ratio: float) -> None:
        """The projects that were built last have a series, the others none."""
        with self._lock:
            self._projects[project] = None
            self._projects.move_to_end(project)
            self._reuse.labels(*project).set(ratio)
            if len(self._projects) > _MAX_PROJECTS:
                oldest, _ = self._projects.popitem(last=False)
                self._reuse.remove(*oldest)
