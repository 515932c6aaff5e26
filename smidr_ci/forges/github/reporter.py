"""Watches builds that belong to GitHub, and puts what has changed into the outbox."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from smidr_ci.builds.service import BuildService, BuildView
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import SmidrError, UsageError
from smidr_ci.forges.deliveries import Outgoing
from smidr_ci.forges.github.check_delivery import CHECK
from smidr_ci.forges.github.rendering import annotated
from smidr_ci.forges.github.targets import CheckNames, CheckTarget, Targets

__all__ = ["CheckReporter"]

log = logging.getLogger(__name__)

_PROGRESS_S: Final = 60.0
_AGAIN_S: Final = 10.0
_NEVER: Final = float("inf")
_FINAL: Final = "final"


@dataclass
class _Watched:
    target: CheckTarget
    end_watch: Callable[[], None] = field(default=lambda: None)
    stage: str = ""
    """Of what was put last, and below its version and when."""
    version: int = -1
    put_at: float = float("-inf")
    due: float = _NEVER
    """When to look again in any case."""


class CheckReporter:
    """One thread for all builds, which sleeps while nothing changes.

    What it puts is only that something is new; the deliverer looks what.
    """

    def __init__(
        self,
        prefix: str,
        service: BuildService,
        outgoing: Outgoing,
        targets: Targets,
        names: CheckNames,
        *,
        clock: Clock | None = None,
        shows_progress: bool = True,
    ) -> None:
        """`prefix` begins the names of receivers; statuses must not show progress."""
        self._prefix = prefix
        self._service = service
        self._outgoing = outgoing
        self._targets = targets
        self._names = names
        self._clock = clock or SystemClock()
        self._shows_progress = shows_progress
        self._change = threading.Condition()
        self._watched: dict[str, _Watched] = {}
        self._dirty: set[str] = set()
        self._is_ended = False
        self._is_looking = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Go on with the builds of an earlier process."""
        for build_id, target in self._targets.all():
            self._watch(build_id, target)
        self._thread = threading.Thread(
            target=self._loop, name=f"{self._prefix}checks", daemon=True
        )
        self._thread.start()

    def begin(self, build_id: str, target: CheckTarget) -> None:
        """Report a build from now on, over restarts too; raises `HostError`."""
        self._targets.save(build_id, target)
        self._names.add(target.repository, target.name)
        self._watch(build_id, target)

    @property
    def is_idle(self) -> bool:
        """Whether all that is known to have changed was put."""
        with self._change:
            return not self._dirty and not self._is_looking

    def stop(self, timeout_s: float = 5.0) -> None:
        """End; the next process goes on."""
        with self._change:
            self._is_ended = True
            self._change.notify_all()
            watched = list(self._watched.values())
        for item in watched:
            item.end_watch()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _watch(self, build_id: str, target: CheckTarget) -> None:
        def wake() -> None:
            with self._change:
                self._dirty.add(build_id)
                self._change.notify_all()

        item = _Watched(target)
        with self._change:
            if build_id in self._watched:
                return
            self._watched[build_id] = item
        try:
            item.end_watch = self._service.subscribe(build_id, wake)
        except UsageError:
            log.warning("there is no build %s to report to GitHub", build_id)
            self._forget(build_id)
            return
        wake()

    def _forget(self, build_id: str) -> None:
        with self._change:
            item = self._watched.pop(build_id, None)
            self._dirty.discard(build_id)
        if item is not None:
            item.end_watch()
        self._targets.remove(build_id)

    def _loop(self) -> None:
        while True:
            with self._change:
                if not self._dirty and not self._is_ended:
                    self._change.wait(self._pause_s())
                if self._is_ended:
                    return
                now = self._clock.monotonic()
                due = {key for key, item in self._watched.items() if item.due <= now}
                dirty, self._dirty = self._dirty | due, set()
                items = {key: self._watched[key] for key in dirty if key in self._watched}
                self._is_looking = True
            for build_id, item in items.items():
                self._look(build_id, item)
            with self._change:
                self._is_looking = False

    def _pause_s(self) -> float | None:
        due = min((item.due for item in self._watched.values()), default=_NEVER)
        return None if due == _NEVER else max(due - self._clock.monotonic(), 1.0)

    def _look(self, build_id: str, item: _Watched) -> None:
        item.due = _NEVER
        try:
            self._put(build_id, item, self._service.view(build_id))
        except UsageError:
            self._forget(build_id)
        except SmidrError as error:
            log.warning("can't report %s to GitHub yet: %s", build_id, error)
            item.due = self._clock.monotonic() + _AGAIN_S

    def _put(self, build_id: str, item: _Watched, view: BuildView) -> None:
        record, now = view.record, self._clock.monotonic()
        payload = item.target.as_plain()
        if record.state.is_final:
            payload["annotate"] = annotated(record, item.target)
            self._send(build_id, _FINAL, payload)
            self._done(build_id)
            return
        stage = f"{record.state}:{len(record.stages)}"
        key = stage
        if stage == item.stage:
            if not self._shows_progress or view.version == item.version:
                return
            # Numbers that change all the time are worth a request a minute.
            if item.put_at + _PROGRESS_S > now:
                item.due = item.put_at + _PROGRESS_S
                return
            key = f"{stage}:{view.version}"
        self._send(build_id, key, payload)
        item.stage, item.version, item.put_at = stage, view.version, now

    def _send(self, build_id: str, key: str, payload: Mapping[str, Any]) -> None:
        receiver = f"{self._prefix}check:{build_id}"
        is_new = self._outgoing.put(
            receiver, key, CHECK, payload, build_id=build_id, supersedes=True
        )
        if key == _FINAL and not is_new:
            # An earlier process put it: it is delivered, given up, or still in the outbox, which
            # has its own copy of the target.
            self._targets.remove(build_id)

    def _done(self, build_id: str) -> None:
        """Watch no longer; the file stays until GitHub has heard."""
        with self._change:
            item = self._watched.pop(build_id, None)
        if item is not None:
            item.end_watch()
