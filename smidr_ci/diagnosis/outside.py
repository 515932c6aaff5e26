"""What the caller knows of the run and no log says: kills for memory, time limit, cancel."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smidr_ci.diagnosis.model import Category, Consequence, DiagnosisContext, Finding, Severity

__all__ = ["apply_outside_facts"]

_MEMORY: Final = (
    "The kernel killed a process of this build for lack of memory: lower BB_NUMBER_THREADS or "
    "PARALLEL_MAKE, or give the build more memory. The source is not to blame."
)
_SUSPECT: Final = frozenset(
    {"assembler-error", "tool-error-inside", "tool-weak-sign", "make-echo", "bitbake-frame",
     "bitbake-echo", "bitbake-task-failed", "linker-exit", "compiler-ice", "task-failed"}
)  # fmt: skip
"""Rules whose lines are what a kill leaves behind, not causes."""


def apply_outside_facts(findings: list[Finding], context: DiagnosisContext) -> list[Finding]:
    """The findings, with the cause that was seen from outside put first."""
    errors = [item for item in findings if item.severity is Severity.ERROR]
    known = {item.category for item in errors}
    if context.timed_out and Category.TIMEOUT not in known:
        return _blame_time(findings)
    if context.cancelled and not errors:
        return [_made(Category.CANCELLED, "The build was cancelled", "Somebody stopped the build.")]
    if context.oom_kills and Category.OUT_OF_MEMORY not in known:
        return _blame_memory(findings)
    return findings


def _blame_time(findings: list[Finding]) -> list[Finding]:
    text = "The build ran into its time limit and was stopped"
    cause = _made(Category.TIMEOUT, text, "Raise the time limit, or share the caches.")
    stops = [item for item in findings if item.category is Category.CANCELLED]
    told = tuple(Consequence(item.message) for item in stops)
    rest = [item for item in findings if item.category is not Category.CANCELLED]
    return [replace(cause, consequences=told, consequence_count=len(told)), *rest]


def _blame_memory(findings: list[Finding]) -> list[Finding]:
    for number, item in enumerate(findings):
        if item.severity is Severity.ERROR and item.rule in _SUSPECT:
            blamed = replace(
                item,
                category=Category.OUT_OF_MEMORY,
                hint=_MEMORY,
                retryable=True,
                cause_visible=True,
            )
            return [blamed, *findings[:number], *findings[number + 1 :]]
    if any(item.severity is Severity.ERROR for item in findings):
        return findings
    text = "The kernel killed a process of this build for lack of memory"
    return [_made(Category.OUT_OF_MEMORY, text, _MEMORY), *findings]


def _made(category: Category, text: str, hint: str) -> Finding:
    return Finding(
        category=category,
        severity=Severity.ERROR,
        message=text,
        rule="seen-from-outside",
        hint=hint,
        retryable=category is not Category.CANCELLED,
        fingerprint=f"outside-{category}",
    )
