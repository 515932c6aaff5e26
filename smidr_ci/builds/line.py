"""Who waits, who runs, and who may start next; one thread's at a time, and without any I/O.

First come, first served, but for three things. A customer waits for the end of its own builds while
it has as many as it may. A build that the host has no room for now waits for it. Meanwhile younger
ones may start, but only those that leave enough of the host to it: it starts at the latest when
the builds that ran already have ended.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from smidr_ci.builds.slots import Amount, Policy, Waiting
from smidr_ci.errors import InternalError

__all__ = ["Line"]

_GIB: Final = 1024**3


@dataclass(frozen=True)
class _Held:
    """The oldest build that the host has no room for now."""

    build_id: str
    spare: Amount
    """What is left for younger ones, when those that run already and the held one have theirs."""


class Line:
    """Builds in their order of arrival; each id is in it once, waiting or running."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.running: dict[str, Waiting] = {}
        self._waiting: dict[str, Waiting] = {}
        self._queues: dict[str, list[tuple[int, str]]] = {}
        self._running_of: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __contains__(self, build_id: str) -> bool:
        return build_id in self._waiting or build_id in self.running

    def waiting(self) -> list[Waiting]:
        """Oldest first."""
        return sorted(self._waiting.values(), key=_age)

    def add(self, build: Waiting) -> None:
        """Let it wait; raises `InternalError` when it is here already."""
        if build.build_id in self:
            raise InternalError(f"build {build.build_id} is queued or running already")
        self._waiting[build.build_id] = build
        insort(self._queues.setdefault(build.customer, []), _age(build))

    def remove(self, build_id: str) -> bool:
        """Let it wait no longer; whether it did."""
        build = self._waiting.pop(build_id, None)
        if build is None:
            return False
        queue = self._queues[build.customer]
        del queue[bisect_left(queue, _age(build))]
        if not queue:
            del self._queues[build.customer]
        return True

    def start(self, build: Waiting) -> None:
        """Count it as running, whatever the limits say.

        Raises `InternalError` when it runs already.
        """
        if build.build_id in self.running:
            raise InternalError(f"build {build.build_id} is running already")
        self.remove(build.build_id)
        self.running[build.build_id] = build
        self._running_of[build.customer] += 1

    def finish(self, build_id: str) -> None:
        """Free its place; nothing happens when it does not run."""
        build = self.running.pop(build_id, None)
        if build is not None:
            self._running_of[build.customer] -= 1
            if not self._running_of[build.customer]:
                del self._running_of[build.customer]

    def first(self) -> Waiting | None:
        """The build that may start now."""
        if len(self.running) >= self.policy.max_builds:
            return None
        return next((head for head, reason in self._heads() if not reason), None)

    def reasons(self) -> dict[str, str]:
        """Why each build waits, oldest first; empty for one that the limits would let start."""
        of_heads = {head.build_id: reason for head, reason in self._heads()}
        return {
            build.build_id: of_heads.get(build.build_id) or self._behind(build)
            for build in self.waiting()
        }

    def reason_of(self, build_id: str) -> str:
        """Why this one waits; empty also for one that does not."""
        build = self._waiting.get(build_id)
        if build is None:
            return ""
        own = next((reason for head, reason in self._heads() if head is build), "")
        return own or self._behind(build)

    def _behind(self, build: Waiting) -> str:
        queue = self._queues[build.customer]
        place = bisect_left(queue, _age(build))
        return f"behind {queue[place - 1][1]} of the same customer" if place else ""

    def _heads(self) -> Iterator[tuple[Waiting, str]]:
        """The oldest build of each customer, oldest first, and what keeps it from starting."""
        heads = [self._waiting[queue[0][1]] for queue in self._queues.values()]
        left = self.policy.budget - self._used_by(self.running.values())
        held: _Held | None = None
        for head in sorted(heads, key=_age):
            reason = self._cap_reached(head)
            if not reason and not self.policy.need_of(head).fits(left):
                reason = self._shortage(head, left)
                held = held or self._hold(head)
            elif not reason and held and not self.policy.need_of(head).fits(held.spare):
                reason = f"{held.build_id} has waited longer and gets the next free memory and CPUs"
            yield head, reason

    def _cap_reached(self, head: Waiting) -> str:
        limit, running = self.policy.limit_of(head.customer), self._running_of[head.customer]
        if running >= limit:
            verb = "build of customer {} runs" if running == 1 else "builds of customer {} run"
            return f"{running} {verb.format(head.customer)} already (limit {limit})"
        slots = self.policy.max_builds
        if len(self.running) >= slots:
            return f"all {slots} slots are taken" if slots > 1 else "the only slot is taken"
        return ""

    def _shortage(self, head: Waiting, left: Amount) -> str:
        need, budget = self.policy.need_of(head), self.policy.budget
        if excess := self.policy.check_fits(head):
            return excess
        if need.memory_bytes > left.memory_bytes:
            return (
                f"needs {need.memory_bytes / _GIB:.1f} GiB of memory; running builds leave"
                f" {max(0, left.memory_bytes) / _GIB:.1f} of {budget.memory_bytes / _GIB:.1f} GiB"
            )
        return (
            f"needs {need.millicpus / 1000:g} CPUs; running builds leave"
            f" {max(0, left.millicpus) / 1000:g} of {budget.millicpus / 1000:g}"
        )

    def _hold(self, head: Waiting) -> _Held:
        younger = (build for build in self.running.values() if _age(build) > _age(head))
        spare = self.policy.budget - self.policy.need_of(head) - self._used_by(younger)
        return _Held(head.build_id, spare)

    def _used_by(self, builds: Iterable[Waiting]) -> Amount:
        return sum((self.policy.need_of(build) for build in builds), Amount())


def _age(build: Waiting) -> tuple[int, str]:
    return build.position, build.build_id
