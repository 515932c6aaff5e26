"""`build.fail_on_warnings`: which warnings fail a build that BitBake completed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.diagnosis.model import Finding, Severity
from smidr_ci.errors import FailureKind

__all__ = ["judge_warnings"]


def judge_warnings(
    unwanted: bool | Collection[str], count: int, findings: Sequence[Finding]
) -> tuple[Outcome, tuple[Finding, ...]]:
    """The outcome of a completed build, and its findings with those that fail it first.

    `unwanted`: true for every warning, also one that diagnosis has no name for; or categories.
    `count` is how often BitBake warned.
    """
    refused = [item for item in findings if _is_unwanted(item, unwanted)]
    if not refused and not (unwanted is True and count):
        return Outcome(BuildState.COMPLETED, 0), tuple(findings)
    rest = (item for item in findings if item not in refused)
    raised = (replace(item, severity=Severity.ERROR) for item in refused)
    message = f"{_which(refused, count)} (build.fail_on_warnings)"
    outcome = Outcome(BuildState.FAILED, 1, FailureKind.BUILD, message)
    return outcome, (*raised, *rest)


def _is_unwanted(finding: Finding, unwanted: bool | Collection[str]) -> bool:
    if isinstance(unwanted, bool):
        return unwanted
    return finding.category in unwanted


def _which(refused: Sequence[Finding], count: int) -> str:
    if not refused:
        return f"BitBake warned {count} {'time' if count == 1 else 'times'}"
    first = refused[0]
    place = ":".join(part for part in (first.recipe, first.task) if part)
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    return f"warning: {f'{place}: ' if place else ''}{first.message}{more}"
