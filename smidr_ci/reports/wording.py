"""Short phrases that all reports share."""

from __future__ import annotations

from smidr_ci.diagnosis.model import Diagnosis, Finding, Severity

__all__ = ["body_of", "headline", "place_of", "title_of"]


def place_of(finding: Finding) -> str:
    """The file to open, `path:line:column` as far as known; the layer's path if there is one."""
    path = finding.repo_path or finding.file or ""
    if path and finding.line:
        path = f"{path}:{finding.line}"
        if finding.column:
            path = f"{path}:{finding.column}"
    return path


def title_of(finding: Finding) -> str:
    """Category, recipe and task in one phrase."""
    subject = " ".join(part for part in (finding.recipe, finding.version) if part)
    parts = [part for part in (subject, finding.task) if part]
    return f"{finding.category}: {', '.join(parts)}" if parts else str(finding.category)


def body_of(finding: Finding) -> str:
    """Message, hint and how to repeat it, a line each."""
    parts = [finding.message, finding.hint]
    if finding.reproduce:
        parts.append(f"Repeat: {finding.reproduce}")
    if finding.consequence_count:
        parts.append(f"{finding.consequence_count} more errors follow from this.")
    return "\n".join(part for part in parts if part)


def headline(diagnosis: Diagnosis) -> str:
    """One sentence: what the logs say about the run."""
    primary = diagnosis.primary
    if primary is not None:
        return title_of(primary)
    warnings = sum(finding.severity is Severity.WARNING for finding in diagnosis.findings)
    counted = f", {warnings} warnings" if warnings else ""
    if diagnosis.summary.succeeded:
        return f"The build succeeded{counted}."
    return f"The logs show no cause of a failure{counted}."
