"""What a log holds about one failure, as far as it has been read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from smidr_ci.diagnosis.frames import Head
from smidr_ci.diagnosis.model import Category, ExcerptLine
from smidr_ci.diagnosis.names import RecipeName
from smidr_ci.diagnosis.rules.base import Rule

__all__ = ["MAX_EVIDENCE", "Evidence", "Failure"]

MAX_EVIDENCE: Final = 24


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line that a rule recognised."""

    rule: Rule
    weight: int
    message: str
    groups: Mapping[str, str]
    number: int
    offset: int
    log: str
    in_block: bool
    is_error: bool = False
    """BitBake printed it as an ERROR."""
    excerpt: tuple[ExcerptLine, ...] = ()


@dataclass(slots=True)
class Failure:
    """One failed task, or one problem of its own; filled while reading."""

    order: int
    category: Category | None = None
    """Set for problems of their own (parsing, providers, server)."""
    label: str | None = None
    name: RecipeName | None = None
    is_name_exact: bool = False
    task: str | None = None
    recipe_file: str | None = None
    task_log: str | None = None
    evidence: list[Evidence] = field(default_factory=list)
    count: int = 0
    chain: tuple[str, ...] = ()
    asker: str | None = None
    ended: bool = False
    is_setscene_retry: bool = False

    def add(self, item: Evidence) -> bool:
        """Keep the item if it is among the best; False when it was dropped."""
        self.count += 1
        if len(self.evidence) < MAX_EVIDENCE:
            self.evidence.append(item)
            return True
        weakest = min(self.evidence, key=lambda known: (known.weight, -known.number))
        if weakest.weight >= item.weight:
            return False
        self.evidence.remove(weakest)
        self.evidence.append(item)
        return True

    def wants(self, weight: int) -> bool:
        """Whether evidence of this weight would be kept."""
        return len(self.evidence) < MAX_EVIDENCE or min(e.weight for e in self.evidence) < weight

    def is_task(self, name: RecipeName | None, task: str | None, label: str | None = None) -> bool:
        """Whether a line that names a recipe and task speaks of this failure."""
        if self.task is None or self.task != task:
            return False
        if name is None or self.name is None:
            return True
        if self.name.recipe == name.recipe:
            return True
        mine = self.label or ""
        return bool(
            (mine and (mine == label or mine.startswith(f"{name.recipe}-")))
            or (label and label.startswith(f"{self.name.recipe}-") and self.is_name_exact)
        )

    def learn(self, name: RecipeName | None, *, exact: bool) -> None:
        """Take over recipe and version where they are better known than before."""
        if name is None:
            return
        if self.name is None:
            self.name, self.is_name_exact = name, exact
        elif exact and not self.is_name_exact:
            version = name.version or self._version_after(name.recipe)
            self.name, self.is_name_exact = RecipeName(name.recipe, version), True
        elif self.name.version is None and name.recipe == self.name.recipe:
            self.name = RecipeName(name.recipe, name.version)

    def _version_after(self, recipe: str) -> str | None:
        if self.name and self.name.recipe == recipe:
            return self.name.version
        return None

    def take_head(self, head: Head) -> None:
        """Learn from the head of a message."""
        self.label = self.label or head.label
        self.task = self.task or head.task
        self.recipe_file = self.recipe_file or head.recipe_file
        self.learn(head.name, exact=False)
