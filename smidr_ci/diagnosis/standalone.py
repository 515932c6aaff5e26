"""Problems that are no task's: parsing, providers, layers, server; one cause, many lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.frames import Head
from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.names import RecipeName, from_recipe_file, strip_variants

__all__ = ["StandaloneFailures"]

_CHAIN: Final = re.compile(r"(?:dependency chain was: |chain was: )\[(?P<items>[^\]]{1,4000})\]")
_CHAIN_ITEM: Final = re.compile(r"'([^']{1,300})'")
_UNBUILDABLE: Final = re.compile(
    r"^(?:NOTE: )?Runtime target '(?P<name>[^']{1,200})' is unbuildable"
)

_ONE_GROUP: Final = frozenset(
    {
        Category.MISSING_PROVIDER,
        Category.EXPANSION_ERROR,
        Category.TASKHASH,
        Category.SERVER,
        Category.CANCELLED,
        Category.PYTHON_EXCEPTION,
        Category.MULTIPLE_PROVIDERS,
        Category.TIMEOUT,
    }
)
"""Categories whose lines belong together unless one of them clearly starts another problem."""

_READING: Final = frozenset({Category.PARSE_ERROR, Category.MISSING_CLASS})


class StandaloneFailures:
    """Groups evidence that stands alone; `new_failure` registers a group."""

    def __init__(self, new_failure: Callable[[], Failure]) -> None:
        self._new_failure = new_failure
        self._open: dict[Category, Failure] = {}
        self._single: dict[tuple[str, str], Failure] = {}
        self._unread: Failure | None = None

    def add(self, item: Evidence, head: Head | None) -> Failure:
        """Put the evidence into its group, opening one if needed."""
        category = item.rule.category
        failure: Failure | None
        unread = self._unread if head is None else None
        self._unread = None
        if unread is not None and category in _READING:
            # The traceback under "Unable to parse": its last line says why.
            unread.category = category
            failure = unread
        elif category in _ONE_GROUP:
            failure = self._open.get(category)
            if failure is None or _starts_another(failure, item, head):
                failure = self._open[category] = self._fresh(category)
        else:
            key = (item.rule.name, item.message)
            failure = self._single.get(key) or self._fresh(category)
            if len(self._single) < 1000:
                self._single[key] = failure
        if head is not None:
            failure.recipe_file = failure.recipe_file or head.recipe_file
            failure.learn(head.name, exact=True)
        failure.add(item)
        _learn_from_groups(failure, item)
        if item.rule.name == "parse-unable-to-parse":
            self._unread = failure
        return failure

    def note(self, text: str) -> None:
        """A NOTE line: tells who asks for what nobody provides."""
        self.continuation(text)

    def continuation(self, text: str) -> bool:
        """Whether the line adds to a provider problem that is open."""
        failure = self._open.get(Category.MISSING_PROVIDER)
        if failure is None:
            return False
        if "chain was" in text and (match := _CHAIN.search(text)):
            if not failure.chain:
                failure.chain = tuple(_CHAIN_ITEM.findall(match["items"])[:50])
            return True
        if "is unbuildable" in text and (match := _UNBUILDABLE.match(text)):
            failure.asker = failure.asker or match["name"]
            return True
        return False

    def _fresh(self, category: Category) -> Failure:
        failure = self._new_failure()
        failure.category = category
        return failure


def _starts_another(failure: Failure, item: Evidence, head: Head | None) -> bool:
    if item.rule.name in {"nothing-provides", "multiple-providers", "expansion-recipe"}:
        same = [known for known in failure.evidence if known.rule.name == item.rule.name]
        return bool(same) and all(
            known.groups.get("missing", known.groups.get("file"))
            != item.groups.get("missing", item.groups.get("file"))
            for known in same
        )
    del head
    return False


def _learn_from_groups(failure: Failure, item: Evidence) -> None:
    groups = item.groups
    if asker := groups.get("asker"):
        name = from_recipe_file(asker)
        failure.asker = failure.asker or (name.recipe if name else None)
        if name:
            failure.recipe_file = failure.recipe_file or strip_variants(asker)[2]
            failure.learn(name, exact=True)
    if item.rule.category is Category.MISSING_PROVIDER:
        return
    if recipe := groups.get("recipe"):
        failure.learn(RecipeName(recipe), exact=True)
    if task_id := groups.get("task_id") or groups.get("task_id2"):
        path, _, task = strip_variants(task_id)[2].replace(".bb.do_", ".bb:do_").rpartition(":")
        failure.task = failure.task or task
        failure.recipe_file = failure.recipe_file or path
        failure.learn(from_recipe_file(path), exact=True)
    file = groups.get("file", "")
    if file.endswith((".bb", ".bbappend")):
        failure.recipe_file = failure.recipe_file or file
        failure.learn(from_recipe_file(file), exact=True)
