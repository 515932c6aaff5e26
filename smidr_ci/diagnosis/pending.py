"""Evidence that came before the line that says whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.frames import TaskRef
from smidr_ci.diagnosis.names import RecipeName
from smidr_ci.diagnosis.rules.base import Weight

__all__ = ["Pending"]

_MAX_ITEMS: Final = 60
_REACH: Final = 4000
"""Lines: what stands further above a failed task's name has nothing to do with it."""


class Pending:
    """Old releases, and texts that people paste, name the task after its output or never."""

    def __init__(self) -> None:
        self._items: list[Evidence] = []
        self.name: RecipeName | None = None
        self.task: str | None = None
        self.running: str | None = None

    def hold(self, item: Evidence) -> None:
        """Keep the item until its owner is known; of too many the weakest and last goes."""
        if len(self._items) >= _MAX_ITEMS:
            self._items = [one for one in self._items if item.number - one.number < _REACH]
        if len(self._items) >= _MAX_ITEMS:
            weakest = min(self._items, key=lambda known: (known.weight, -known.number))
            if weakest.weight >= item.weight:
                return
            self._items.remove(weakest)
        self._items.append(item)

    def note(self, name: RecipeName | None, task: str | None = None) -> None:
        """Remember who is named in passing; the first counts."""
        self.name = self.name or name
        self.task = self.task or task

    def note_running(self, task: str) -> None:
        """Remember whose function runs; the last one counts, and only if nothing failed says."""
        self.running = task

    def note_reference(self, reference: TaskRef) -> None:
        """The same from a line of a task's log."""
        self.note(reference.name, reference.task)

    def give_to(self, failure: Failure, line_number: int) -> None:
        """The owner is known: hand over what stands near enough above it."""
        for item in self._items:
            if line_number - item.number < _REACH:
                failure.add(item)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._items, self.name, self.task, self.running = [], None, None, None

    def settle(self, known: Sequence[Failure], *, is_console: bool) -> list[Evidence]:
        """At the end of a log: what deserves a failure of its own; the rest is handed out.

        A console log without any failed task most likely is one of a build that went well.
        """
        if not known and is_console:
            return [item for item in self._items if item.weight >= Weight.CAUSE or item.is_error]
        if not known:
            strongest = max((item.weight for item in self._items), default=0)
            return [
                item
                for item in self._items
                if strongest >= Weight.LIKELY or item.in_block or not item.rule.is_generic
            ]
        items = [item for item in self._items if item.in_block or item.weight >= Weight.ROOT]
        tasks = [failure for failure in known if failure.category is None]
        if len(tasks) == 1 and all(item.weight <= Weight.ECHO for item in tasks[0].evidence):
            for item in items:
                tasks[0].add(item)
            return []
        return [item for item in items if item.weight >= Weight.CAUSE]
