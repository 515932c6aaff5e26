"""From collected evidence to findings."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smidr_ci.diagnosis.evidence import Evidence, Failure
from smidr_ci.diagnosis.model import (
    Category,
    Consequence,
    DiagnosisContext,
    Finding,
    Severity,
)
from smidr_ci.diagnosis.names import RecipeName, from_work_path
from smidr_ci.diagnosis.patches import patch_of
from smidr_ci.diagnosis.ranking import best_evidence, category_of, order_of
from smidr_ci.diagnosis.refine import Warnings, refine
from smidr_ci.diagnosis.rules.base import Weight
from smidr_ci.diagnosis.where import place_of

__all__ = ["findings_of", "name_skipped_target", "warning_findings"]

_MAX_CONSEQUENCES: Final = 10
_VOLATILE: Final = re.compile(
    r"0x[0-9a-f]+|\b[0-9a-f]{12,64}\b|\.\d{2,10}\b|(?<=[:\[ ])\d+|/\S*/(?=[^/\s]+)|'[^' ]*/"
)
_Owner = tuple[str | None, str | None, str | None]
"""Task, recipe file and log of what failed."""


def findings_of(
    failures: Sequence[Failure], warnings: Warnings, context: DiagnosisContext
) -> list[Finding]:
    """One finding per failure, the primary cause first, its consequences under it."""
    ordered = sorted(failures, key=order_of)
    found = (_finding(failure, warnings, context) for failure in ordered)
    return _fold([finding for finding in found if finding])


def warning_findings(warnings: Warnings, context: DiagnosisContext) -> list[Finding]:
    """Findings of lower severity; the same warning of the same recipe once."""
    severity = Severity.ERROR if context.warnings_as_errors else Severity.WARNING
    found: dict[str, Finding] = {}
    for item, head in warnings:
        name = head.name or _name_from_packages([item])
        finding = _make(
            item, item.rule.category, severity, name, (head.task, head.recipe_file, None), context
        )
        found.setdefault(finding.fingerprint, finding)
    return list(found.values())


def _finding(failure: Failure, warnings: Warnings, context: DiagnosisContext) -> Finding | None:
    item = refine(failure, best_evidence(failure), warnings)
    if item is None and not failure.task:
        return None
    category = category_of(failure, item)
    name = failure.name
    if name is None and item is not None:
        name = _name_from_excerpt(item)
    if name is None and category is Category.PACKAGE_QA:
        name = _name_from_packages(failure.evidence)
    if category is Category.MISSING_PROVIDER:
        name = _asker(failure, name)
    if item is None:
        return _unexplained(failure, category, name, context)
    file = failure.recipe_file
    if category is Category.PATCH:
        file = patch_of(failure, item) or file
    owner = (failure.task, file, failure.task_log)
    finding = _make(item, category, Severity.ERROR, name, owner, context)
    if finding.layer is None and category is Category.PATCH:
        place = place_of(failure.recipe_file, context.layers)
        finding = replace(finding, layer=place.layer, repo_path=place.repo_path)
    return finding


def _asker(failure: Failure, name: RecipeName | None) -> RecipeName | None:
    if failure.asker and name and name.recipe == failure.asker:
        return name
    if failure.asker:
        return RecipeName(failure.asker)
    if len(failure.chain) >= 2:
        return RecipeName(failure.chain[-2])
    return name


_SKIPPED: Final = re.compile(r"^(?:ERROR: )?([\w.+-]{1,160}) was skipped: ")


def name_skipped_target(finding: Finding) -> Finding:
    """A recipe that was asked for by name and is skipped is the one to look at.

    Only for a whole log: a chain that names who asks may follow.
    """
    if finding.category is not Category.MISSING_PROVIDER or finding.recipe:
        return finding
    match = _SKIPPED.match(finding.message)
    if match is None:
        return finding
    name = RecipeName(match[1])
    finding = replace(finding, recipe=name.recipe, reproduce=_reproduce(name, None))
    return replace(finding, fingerprint=_fingerprint(finding))


def _name_from_excerpt(item: Evidence) -> RecipeName | None:
    if name := from_work_path(item.message):
        return name
    for line in item.excerpt:
        if name := from_work_path(line.text):
            return name
    return None


_PACKAGE: Final = re.compile(
    r"QA Issue: (?:package )?((?!package\b)[a-z][\w.+-]{1,100}):? (?!Issue)"
)
_SHIPPED: Final = re.compile(r"(?:^|[\s:])([a-z][\w.+-]{1,100}): Files/directories were installed")
_PACKAGE_SUFFIX: Final = re.compile(
    r"-(?:dev|dbg|doc|src|staticdev|locale.*|bin|lib|utils|examples|ptest)$"
)


def _name_from_packages(evidence: Sequence[Evidence]) -> RecipeName | None:
    """Old releases name only the package: what several have in common is the recipe."""
    for item in evidence:
        if shipped := _SHIPPED.search(item.message):
            return RecipeName(shipped[1])
    packages = sorted({m[1] for item in evidence if (m := _PACKAGE.search(item.message))})
    if not packages:
        return None
    first, last = packages[0], packages[-1]
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    common = _PACKAGE_SUFFIX.sub("", first[:same])
    if len(packages) > 1 and common not in packages:
        common = common.rpartition("-")[0]
    elif len(packages) == 1 and "-" in common:
        return None
    return RecipeName(common) if len(common) > 1 else None


def _unexplained(
    failure: Failure, category: Category, name: RecipeName | None, context: DiagnosisContext
) -> Finding:
    what = f"{name.recipe if name else 'a recipe'} {failure.task or ''}".strip()
    place = place_of(failure.recipe_file, context.layers)
    finding = Finding(
        category=category,
        severity=Severity.ERROR,
        message=f"{what} failed; the log does not say why",
        rule="task-failed",
        recipe=name.recipe if name else None,
        version=name.version if name else None,
        task=failure.task,
        file=failure.recipe_file,
        repo_path=place.repo_path,
        layer=place.layer,
        hint=_look_at(failure.task_log),
        log="console",
        task_log=failure.task_log,
        cause_visible=False,
        reproduce=_reproduce(name, failure.task),
    )
    return replace(finding, fingerprint=_fingerprint(finding))


def _make(
    item: Evidence,
    category: Category,
    severity: Severity,
    name: RecipeName | None,
    owner: _Owner,
    context: DiagnosisContext,
) -> Finding:
    task, recipe_file, task_log = owner
    groups = item.groups
    file = groups.get("file") or None
    line = int(groups["line"]) if file and groups.get("line") else None
    column = int(groups["column"]) if line and groups.get("column") else None
    place = place_of(file, context.layers)
    if file is None or file == "{standard input}":
        file, line, column = recipe_file, None, None
        place = place_of(file, context.layers)
    recipe = name.recipe if name else groups.get("recipe")
    visible = item.rule.cause_visible and item.weight > Weight.ECHO
    hint = _hint(item) if visible else f"{_hint(item)} {_look_at(task_log)}".strip()
    finding = Finding(
        category=category,
        severity=severity,
        message=item.message,
        rule=item.rule.name,
        recipe=recipe,
        version=(name.version if name else None) or groups.get("version"),
        task=task,
        file=file,
        line=line,
        column=column,
        repo_path=place.repo_path,
        layer=place.layer,
        hint=hint,
        excerpt=item.excerpt,
        log=item.log,
        log_line=item.number,
        task_log=task_log,
        retryable=item.rule.retryable,
        cause_visible=visible,
        reproduce=_reproduce(name or (RecipeName(recipe) if recipe else None), task),
    )
    return replace(finding, fingerprint=_fingerprint(finding))


def _hint(item: Evidence) -> str:
    values = defaultdict(str, item.groups)
    try:
        return item.rule.hint.format_map(values)
    except (ValueError, IndexError, KeyError, AttributeError):
        return item.rule.hint


def _look_at(task_log: str | None) -> str:
    return (
        f"Look at {task_log}." if task_log else "Look at the task's log.do_* in the work directory."
    )


def _reproduce(name: RecipeName | None, task: str | None) -> str | None:
    if not name or not re.fullmatch(r"[\w.+-]{1,200}", name.recipe):
        return None
    if not task:
        return f"bitbake {name.recipe}"
    step = task.removeprefix("do_").removesuffix("_setscene")
    return f"bitbake -c {step} -f {name.recipe}"


def _fingerprint(finding: Finding) -> str:
    """Stable across builds: no path prefix, number, hash or process id takes part."""
    text = _VOLATILE.sub("", finding.message)
    parts = (finding.category.value, finding.recipe or "", finding.task or "", text)
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _fold(found: list[Finding]) -> list[Finding]:
    """Put what the primary cause explains under it."""
    if not found:
        return []
    primary, rest = found[0], found[1:]
    kept: list[Finding] = []
    folded: list[Consequence] = []
    for finding in rest:
        if _explains(primary, finding):
            folded.append(Consequence(finding.message, finding.recipe, finding.task))
        else:
            kept.append(finding)
    primary = replace(
        primary, consequences=tuple(folded[:_MAX_CONSEQUENCES]), consequence_count=len(folded)
    )
    return [primary, *kept]


_PARSING: Final = frozenset(
    {Category.PARSE_ERROR, Category.EXPANSION_ERROR, Category.MISSING_CLASS, Category.SERVER}
)


def _explains(cause: Finding, other: Finding) -> bool:
    if other.rule in {
        "parse-halted",
        "command-exited",
        "parse-unable-to-parse",
        "unbuildable-target",
        "server-start",
        "core-shell-code",
    }:
        return True
    if cause.category in {Category.LAYER_COMPAT, Category.LAYER_DEPENDENCY, Category.SANITY}:
        is_traceback = other.category is Category.PYTHON_EXCEPTION and other.task is None
        return (
            is_traceback
            or other.category in _PARSING
            or (other.category is cause.category and other.rule != cause.rule)
        )
    if cause.category is Category.MISSING_PROVIDER:
        return other.category is Category.MISSING_PROVIDER and other.recipe == cause.recipe
    if cause.category is Category.TIMEOUT:
        return other.category is Category.CANCELLED
    if cause.category in {Category.TASKHASH, Category.DISK_SPACE}:
        return other.category is cause.category
    return cause.task is None and (other.message, other.task) == (cause.message, None)
