"""Findings for a terminal or a plain CI log."""

from __future__ import annotations

from collections.abc import Iterator

from smidr_ci.diagnosis.model import Diagnosis, Finding, Severity
from smidr_ci.reports.escape import plain_line
from smidr_ci.reports.wording import headline, place_of, title_of

__all__ = ["render_text"]

_SHOWN = 20


def render_text(diagnosis: Diagnosis) -> str:
    """The primary cause with its context, then the others in brief."""
    lines = list(_lines(diagnosis))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    if not diagnosis.findings:
        yield plain_line(headline(diagnosis))
        return
    for number, finding in enumerate(diagnosis.findings[:_SHOWN]):
        if number:
            yield ""
        yield from _finding(finding, with_context=number == 0)
    more = len(diagnosis.findings) - _SHOWN
    if more > 0:
        yield ""
        yield f"and {more} more findings (--format json shows all)"


def _finding(finding: Finding, *, with_context: bool) -> Iterator[str]:
    mark = "error" if finding.severity is Severity.ERROR else "warning"
    yield plain_line(f"{mark}: {title_of(finding)}")
    yield plain_line(f"  > {finding.message}")
    if place := place_of(finding):
        layer = f"  (layer {finding.layer})" if finding.layer else ""
        yield plain_line(f"  file: {place}{layer}")
    if finding.hint:
        yield plain_line(f"  hint: {finding.hint}")
    if finding.reproduce:
        yield plain_line(f"  repeat: {finding.reproduce}")
    if finding.task_log:
        yield plain_line(f"  log: {finding.task_log}")
    if finding.consequence_count:
        yield f"  {finding.consequence_count} more errors follow from this"
    if with_context and finding.severity is Severity.ERROR and finding.excerpt:
        yield plain_line(f"  context ({finding.log or 'log'}):")
        for line in finding.excerpt:
            mark = ">" if line.number == finding.log_line else "|"
            yield plain_line(f"  {line.number:>8} {mark} {line.text}", 300)
