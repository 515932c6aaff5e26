"""The failures of a run, found again by what a line says of them."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.events import FailedTask
from smidr_ci.diagnosis.evidence import Failure
from smidr_ci.diagnosis.frames import TaskRef
from smidr_ci.diagnosis.names import RecipeName, strip_variants

__all__ = ["FailureRegister"]

_MAX_FAILURES: Final = 400


class FailureRegister:
    """Keeps the first few hundred failures; later ones are taken and forgotten."""

    def __init__(self) -> None:
        self.all: list[Failure] = []

    def new(self) -> Failure:
        """A failure of which nothing is known yet."""
        failure = Failure(order=len(self.all))
        if len(self.all) < _MAX_FAILURES:
            self.all.append(failure)
        return failure

    def find(
        self, name: RecipeName | None, task: str | None, label: str | None = None
    ) -> Failure | None:
        """The failure of this recipe and task, the last one first."""
        for failure in reversed(self.all):
            if failure.is_task(name, task, label):
                return failure
        return None

    def owner_of_log(self, log: str, reference: TaskRef | None) -> Failure:
        """The failure whose task wrote this log; a new one if none fits."""
        tasks = [failure for failure in self.all if failure.category is None]
        for failure in tasks:
            if failure.task_log and log.endswith(failure.task_log.rsplit("/", 1)[-1]):
                return failure
        if reference and (found := self.find(reference.name, reference.task)):
            return found
        if len(self.all) == 1 or (tasks and not reference):
            return (tasks or self.all)[0]
        failure = self.new()
        if reference:
            failure.task, failure.task_log = reference.task, log
            failure.learn(reference.name, exact=True)
        return failure

    def take_event(self, event: FailedTask) -> None:
        """Take over what BitBake itself says of a failed task, better than any text."""
        name = RecipeName(event.recipe, event.version or None) if event.recipe else None
        failure = self.find(name, event.task)
        if failure is None:
            if event.is_silent:
                return
            failure = self.new()
            failure.task = event.task
        if name:
            failure.name, failure.is_name_exact = name, True
        failure.recipe_file = strip_variants(event.file)[2] or failure.recipe_file
        failure.task_log = event.log or failure.task_log
