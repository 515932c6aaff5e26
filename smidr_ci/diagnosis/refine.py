"""The few choices between lines that a weight can't express."""

from __future__ import annotations

from collections.abc import Sequence

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.frames import Head
from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Weight

__all__ = ["Warnings", "refine"]


Warnings = Sequence[tuple[Evidence, Head]]


def refine(failure: Failure, item: Evidence | None, warnings: Warnings) -> Evidence | None:
    """A better line than the weightiest, where the kind of failure knows one."""
    if item is None or item.weight < Weight.CAUSE or item.rule.name == "patch-no-file":
        item = _missing_source(failure, warnings) or item
    if item is not None and failure.category is Category.MISSING_PROVIDER:
        return _preferred_skip(failure, item)
    return item


def _missing_source(failure: Failure, warnings: Warnings) -> Evidence | None:
    """The warning that S points nowhere explains why patches and configure find no files."""
    if not failure.task or not failure.name or failure.task.startswith(("do_fetch", "do_unpack")):
        return None
    for known, head in warnings:
        if (
            known.rule.name == "patch-source-dir"
            and head.name
            and head.name.recipe == failure.name.recipe
        ):
            return known
    return None


def _preferred_skip(failure: Failure, item: Evidence) -> Evidence:
    """Of many skipped providers, the reason of the one that the configuration prefers."""
    skips = [known for known in failure.evidence if known.rule.name.startswith("skipped-")]
    preferred = {known.groups["preferred"] for known in skips if "preferred" in known.groups}
    for known in sorted(skips, key=lambda one: one.number):
        if known.groups.get("recipe_skipped") in preferred:
            return known
    if item.weight < Weight.CAUSE:
        reasons = [known for known in skips if known.weight >= Weight.CAUSE]
        return reasons[0] if reasons else item
    return item
