"""The few choices between lines that a weight can't express."""

from __future__ import annotations

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Weight

__all__ = ["refine"]


def refine(failure: Failure, item: Evidence | None) -> Evidence | None:
    """A better line than the weightiest, where the kind of failure knows one."""
    if item is None:
        return None
    if failure.category is Category.MISSING_PROVIDER:
        return _preferred_skip(failure, item)
    return item


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
