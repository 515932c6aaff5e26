"""The Markdown summary for a pull request, a job page or a check run.

Limits: a GitHub comment or check summary takes 65,535 characters, a step summary 1 MiB, a GitLab
note 1,000,000. Sections are dropped from the end until it fits; the cause is always first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smidr_ci.builds.model import SstateSummary
from smidr_ci.builds.worth import work_sentence
from smidr_ci.diagnosis.model import Diagnosis, Finding, Severity
from smidr_ci.reports.escape import cell, clip, fenced, inline
from smidr_ci.reports.facts import BuildFacts, ImageSize, sstate_of
from smidr_ci.reports.wording import headline, place_of, title_of

__all__ = ["COMMENT_LIMIT", "NOTE_LIMIT", "STEP_SUMMARY_LIMIT", "render_markdown"]

COMMENT_LIMIT: Final = 65_000
STEP_SUMMARY_LIMIT: Final = 1_000_000
NOTE_LIMIT: Final = 900_000

_ROWS: Final = 30
_CUT: Final = "\n*The rest was left out to fit the size limit.*\n"


def render_markdown(
    diagnosis: Diagnosis, facts: BuildFacts | None = None, *, limit: int = COMMENT_LIMIT
) -> str:
    """At most `limit` characters (GitHub counts them, GitLab too)."""
    facts = facts or BuildFacts()
    text = ""
    for section in _SECTIONS:
        part = section(diagnosis, facts)
        if not part:
            continue
        if len(text) + len(part) + len(_CUT) + 1 > limit:
            return clip(text or part, limit - len(_CUT)) + _CUT
        text = f"{text}\n{part}" if text else part
    return text


def _head(diagnosis: Diagnosis, facts: BuildFacts) -> str:
    failed = diagnosis.primary is not None
    result = facts.result or ("failed" if failed else "")
    title = facts.title or "BitBake build"
    lines = [f"### {inline(title)}{': ' + inline(result) if result else ''}", ""]
    is_told = failed or not facts.message
    lines.append(f"**{inline(headline(diagnosis) if is_told else facts.message, 2000)}**")
    return "\n".join(lines) + "\n"


def _cause(diagnosis: Diagnosis, _facts: BuildFacts) -> str:
    finding = diagnosis.primary
    if finding is None:
        return ""
    lines = [fenced([clip(finding.message, 1500)]), ""]
    if place := place_of(finding):
        layer = f" in layer {inline(finding.layer)}" if finding.layer else ""
        lines.append(f"* File: <code>{inline(place)}</code>{layer}")
    if finding.hint:
        lines.append(f"* What to do: {inline(finding.hint, 1000)}")
    if finding.reproduce:
        lines.append(f"* Repeat just this: <code>{inline(finding.reproduce)}</code>")
    if finding.task_log:
        lines.append(f"* Task log: <code>{inline(finding.task_log)}</code>")
    if finding.consequence_count:
        lines.append(f"* {finding.consequence_count} more errors follow from this")
    return "\n".join(lines) + "\n"


def _context(diagnosis: Diagnosis, _facts: BuildFacts) -> str:
    finding = diagnosis.primary
    if finding is None or not finding.excerpt:
        return ""
    lines = [f"{line.number:>7} {line.text}" for line in finding.excerpt]
    summary = "<details><summary>Context in the log</summary>"
    return f"{summary}\n\n{fenced(lines)}\n\n</details>\n"


def _others(diagnosis: Diagnosis, _facts: BuildFacts) -> str:
    others = [item for item in diagnosis.findings if item is not diagnosis.primary]
    if not others:
        return ""
    rows = [_row(item) for item in others[:_ROWS]]
    more = f"\nand {len(others) - _ROWS} more\n" if len(others) > _ROWS else ""
    head = "| | Finding | Message | File |\n|---|---|---|---|\n"
    return f"#### Other findings\n\n{head}{''.join(rows)}{more}"


def _row(finding: Finding) -> str:
    mark = "error" if finding.severity is Severity.ERROR else "warning"
    message, place = cell(finding.message, 250), cell(place_of(finding), 150)
    return f"| {mark} | {cell(title_of(finding), 120)} | {message} | {place} |\n"


def _stages(_diagnosis: Diagnosis, facts: BuildFacts) -> str:
    if not facts.stages:
        return ""
    rows = "".join(f"| {cell(name)} | {_duration(seconds)} |\n" for name, seconds in facts.stages)
    return f"#### Stages\n\n| Stage | Time |\n|---|---|\n{rows}"


def _sstate(diagnosis: Diagnosis, facts: BuildFacts) -> str:
    now = facts.sstate or sstate_of(diagnosis.summary)
    if now is None or not now.wanted:
        return ""
    text = f"Shared state: {_reused(now)}"
    before = facts.previous_sstate
    if before is not None and before.wanted:
        text = f"{text}; previous build: {_reused(before)}"
    reasons = "".join(f"* Ran again: {inline(reason, 1000)}\n" for reason in facts.rebuilt[:_ROWS])
    return f"{text}.\n{reasons}"


def _work(_diagnosis: Diagnosis, facts: BuildFacts) -> str:
    return f"Cost: {work_sentence(facts.work)}.\n" if facts.work else ""


def _reused(figures: SstateSummary) -> str:
    found = figures.local + figures.mirrors
    return f"{found} of {figures.wanted} objects reused ({100 * found // figures.wanted} %)"


def _images(_diagnosis: Diagnosis, facts: BuildFacts) -> str:
    if not facts.images:
        return ""
    rows = "".join(_image_row(image) for image in facts.images[:_ROWS])
    return f"#### Images\n\n| File | Size | Difference |\n|---|---:|---:|\n{rows}"


def _image_row(image: ImageSize) -> str:
    change = ""
    if image.previous_bytes is not None:
        delta = image.size_bytes - image.previous_bytes
        change = f"{'+' if delta >= 0 else '-'}{_size(abs(delta))}" if delta else "same"
    return f"| {cell(image.path, 200)} | {_size(image.size_bytes)} | {change} |\n"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def _layers(_diagnosis: Diagnosis, facts: BuildFacts) -> str:
    rows = (
        f"| {cell(name)} | {cell(commit, 60)} |\n" for name, commit in facts.layer_commits.items()
    )
    table = "".join(rows)
    if not table:
        return ""
    return (
        "<details><summary>Layers</summary>\n\n| Layer | Commit |\n|---|---|\n"
        f"{table}\n</details>\n"
    )


_Section = Callable[[Diagnosis, BuildFacts], str]
_SECTIONS: Final[tuple[_Section, ...]] = (
    _head,
    _cause,
    _context,
    _others,
    _sstate,
    _work,
    _images,
    _stages,
    _layers,
)
