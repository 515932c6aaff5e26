"""Which build starts next, and why the others wait.

No threads of its own: whoever owns it asks `take` after each `add`, `drop`, `finished` and
`reconfigure`, and again some seconds later while `wants_recheck`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from smidr_ci.builds.admission import Admission
from smidr_ci.builds.line import Line
from smidr_ci.builds.slots import Policy, Waiting

__all__ = ["Policy", "Scheduler", "Waiting"]

_DRAINS = "the agent drains and starts no more builds"
_NEXT = "about to start"


class Scheduler:
    """The queue of a host; all calls may come from any thread, and only `take` looks at the host.

    A build that was queued is dropped or taken once, and one that was taken or resumed ends with
    `finished`.
    """

    def __init__(self, policy: Policy, admission: Admission) -> None:
        self._lock = threading.Lock()
        self._line = Line(policy)
        self._admission = admission
        self._refusal = ""
        self._is_draining = False

    def add(self, build: Waiting) -> None:
        """Queue a build; raises `InternalError` when its id is here already."""
        with self._lock:
            self._line.add(build)

    def drop(self, build_id: str) -> bool:
        """Take a build out of the queue; False when it does not wait (any more)."""
        with self._lock:
            return self._line.remove(build_id)

    def take(self) -> Waiting | None:
        """The build that shall start now, which counts as running from here on; None for none.

        Asks the host, which may take as long as a file system takes to answer.
        """
        while True:
            with self._lock:
                chosen, admission = self._first(), self._admission
                if chosen is None:
                    self._refusal = ""
                    return None
            refusal = admission.check(chosen)
            with self._lock:
                # While nobody held the lock, any other call may have come.
                if admission is not self._admission or chosen != self._first():
                    continue
                self._refusal = refusal or ""
                if refusal:
                    return None
                self._line.start(chosen)
                return chosen

    def _first(self) -> Waiting | None:
        return None if self._is_draining else self._line.first()

    def resume(self, build: Waiting) -> None:
        """Count a build that was found running, even beyond all limits.

        Raises `InternalError` when it counts already.
        """
        with self._lock:
            self._line.start(build)

    def finished(self, build_id: str) -> None:
        """Free the build's place; nothing happens for one that holds none."""
        with self._lock:
            self._line.finish(build_id)

    def reasons(self) -> Mapping[str, str]:
        """Why each queued build waits, in the order of the queue."""
        with self._lock:
            found = self._line.reasons()
            return {build_id: self._said(reason) for build_id, reason in found.items()}

    def reason_of(self, build_id: str) -> str:
        """Why this build waits; empty for one that is not queued."""
        with self._lock:
            if build_id in self._line.running or build_id not in self._line:
                return ""
            return self._said(self._line.reason_of(build_id))

    def _said(self, reason: str) -> str:
        return _DRAINS if self._is_draining else reason or self._refusal or _NEXT

    def refusal(self, expected: int) -> str | None:
        """Why one more build could not start at once, when so many others come before it.

        Asks the host, as `take` does.
        """
        with self._lock:
            if self._is_draining:
                return _DRAINS
            slots = self._line.policy.max_builds
            before = len(self._line.running) + len(self._line) + expected
            admission = self._admission
        if before >= slots:
            return f"all {slots} slots are taken" if slots > 1 else "the only slot is taken"
        return admission.check(Waiting("", "", position=0))

    @property
    def running(self) -> tuple[str, ...]:
        """Ids in the order in which they started."""
        with self._lock:
            return tuple(self._line.running)

    @property
    def queued(self) -> tuple[str, ...]:
        """Ids, oldest first."""
        with self._lock:
            return tuple(build.build_id for build in self._line.waiting())

    @property
    def max_running(self) -> int:
        """How many builds may run at once; those that were resumed may be more."""
        with self._lock:
            return self._line.policy.max_builds

    @property
    def wants_recheck(self) -> bool:
        """Whether a build waits for disk or memory pressure, of whose end nobody tells."""
        with self._lock:
            return bool(self._refusal and len(self._line)) and not self._is_draining

    @property
    def is_draining(self) -> bool:
        """Whether nothing starts any more."""
        with self._lock:
            return self._is_draining

    def drain(self) -> None:
        """Start nothing any more; builds may still be added, and wait."""
        with self._lock:
            self._is_draining = True

    def reconfigure(self, policy: Policy, admission: Admission) -> None:
        """Go on with other limits; what runs goes on, also beyond them."""
        with self._lock:
            self._line.policy, self._admission, self._refusal = policy, admission, ""
