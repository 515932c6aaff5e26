"""GitLab's Code Quality report: a JSON array of issues (docs.gitlab.com, "Code Quality")."""

from __future__ import annotations

import json
from typing import Any, Final

from smidr_ci.diagnosis.model import Category, Diagnosis, Finding, Severity
from smidr_ci.reports.escape import clip
from smidr_ci.reports.wording import title_of
from smidr_ci.text import printable

__all__ = ["render_codequality"]

_MAX_ISSUES: Final = 1000
_HOST: Final = frozenset(
    {Category.DISK_SPACE, Category.OUT_OF_MEMORY, Category.SERVER, Category.TIMEOUT}
)


def render_codequality(diagnosis: Diagnosis, *, default_path: str = "smidr.yaml") -> str:
    """One issue per finding; `default_path` is named where no file of a layer is known."""
    issues: dict[str, dict[str, Any]] = {}
    for finding in diagnosis.findings[:_MAX_ISSUES]:
        # GitLab drops issues with the same fingerprint.
        fingerprint = finding.fingerprint
        while fingerprint in issues:
            fingerprint = f"{fingerprint}+"
        issues[fingerprint] = _issue(finding, fingerprint, default_path)
    return json.dumps(list(issues.values()), indent=2) + "\n"


def _issue(finding: Finding, fingerprint: str, default_path: str) -> dict[str, Any]:
    text = f"{title_of(finding)}: {finding.message}"
    if finding.hint:
        text = f"{text} ({finding.hint})"
    line = finding.line if finding.repo_path and finding.line else 1
    return {
        "description": clip(printable(text), 2000),
        "check_name": f"smidr/{finding.category}",
        "fingerprint": fingerprint,
        "severity": _severity(finding),
        "location": {
            "path": printable(finding.repo_path or default_path),
            "lines": {"begin": line},
        },
    }


def _severity(finding: Finding) -> str:
    if finding.severity is Severity.WARNING:
        return "minor"
    return "critical" if finding.category in _HOST else "major"
