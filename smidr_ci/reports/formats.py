"""The report formats by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from smidr_ci.diagnosis.model import Diagnosis
from smidr_ci.reports.codequality import render_codequality
from smidr_ci.reports.github import render_workflow_commands
from smidr_ci.reports.junit import render_junit
from smidr_ci.reports.markdown import render_markdown
from smidr_ci.reports.sarif import render_sarif
from smidr_ci.reports.text import render_text

__all__ = ["FORMATS"]

FORMATS: Final[Mapping[str, Callable[[Diagnosis], str]]] = MappingProxyType(
    {
        "text": render_text,
        "json": Diagnosis.to_json,
        "markdown": render_markdown,
        "github": render_workflow_commands,
        "codequality": render_codequality,
        "junit": render_junit,
        "sarif": render_sarif,
    }
)
"""What `smidr diagnose --format` takes."""
