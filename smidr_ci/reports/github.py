"""GitHub: workflow commands for a step's log, and annotations for a check run.

Limits (docs.github.com, "Workflow commands", "Checks API"): a step shows 10 errors and 10
warnings; a request takes 50 annotations, a title 255 characters, a message 64 KB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from smidr_ci.diagnosis.model import Diagnosis, Finding, Severity
from smidr_ci.reports.escape import clip, workflow_data, workflow_property
from smidr_ci.reports.wording import body_of, title_of
from smidr_ci.text import printable

__all__ = ["check_annotations", "render_workflow_commands"]

_PER_LEVEL: Final = 10
_PER_REQUEST: Final = 50
_MESSAGE: Final = 16_000
_TITLE: Final = 250


def render_workflow_commands(diagnosis: Diagnosis) -> str:
    """`::error ...::message` lines, the cause first, no more than GitHub shows."""
    lines: list[str] = []
    for severity, command in ((Severity.ERROR, "error"), (Severity.WARNING, "warning")):
        chosen = [item for item in diagnosis.findings if item.severity is severity]
        lines += [_command(command, item) for item in chosen[:_PER_LEVEL]]
    return "".join(f"{line}\n" for line in lines)


def _command(name: str, finding: Finding) -> str:
    properties = {"title": clip(title_of(finding), _TITLE)}
    # Only a path of the repository can be annotated; others are told in the message.
    if finding.repo_path:
        properties["file"] = finding.repo_path
        if finding.line:
            properties["line"] = str(finding.line)
            if finding.column:
                properties["col"] = str(finding.column)
    listed = ",".join(f"{key}={workflow_property(value)}" for key, value in properties.items())
    return f"::{name} {listed}::{workflow_data(_message(finding))}"


def check_annotations(findings: Sequence[Finding]) -> list[list[dict[str, Any]]]:
    """Annotations for a check run, in requests of at most 50; only places in a repository."""
    found = [_annotation(item) for item in findings if item.repo_path]
    return [found[start : start + _PER_REQUEST] for start in range(0, len(found), _PER_REQUEST)]


def _annotation(finding: Finding) -> dict[str, Any]:
    line = finding.line or 1
    annotation: dict[str, Any] = {
        "path": finding.repo_path,
        "start_line": line,
        "end_line": line,
        "annotation_level": "failure" if finding.severity is Severity.ERROR else "warning",
        "title": clip(printable(title_of(finding)), _TITLE),
        "message": printable(_message(finding), keep_newlines=True),
        "raw_details": clip("\n".join(printable(item.text) for item in finding.excerpt), _MESSAGE),
    }
    if finding.column:
        annotation |= {"start_column": finding.column, "end_column": finding.column}
    return annotation


def _message(finding: Finding) -> str:
    body = body_of(finding)
    if finding.file and not finding.repo_path:
        line = f":{finding.line}" if finding.line else ""
        body = f"{body}\nFile: {finding.file}{line}"
    return clip(body, _MESSAGE)
