"""SARIF 2.1.0, for GitHub code scanning and other viewers (OASIS sarif-v2.1.0)."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from smidr_ci import __version__
from smidr_ci.diagnosis.model import Category, Diagnosis, Finding, Severity
from smidr_ci.reports.escape import clip
from smidr_ci.reports.wording import body_of, title_of
from smidr_ci.text import printable

__all__ = ["render_sarif"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_MAX_RESULTS: Final = 1000


def render_sarif(diagnosis: Diagnosis) -> str:
    """One run whose rules are the categories that occur and whose results are the findings."""
    findings = diagnosis.findings[:_MAX_RESULTS]
    rules = list(dict.fromkeys(finding.category for finding in findings))
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "smidr",
                        "semanticVersion": _semantic_version(),
                        "rules": [_rule(category) for category in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, rules) for finding in findings],
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _semantic_version() -> str:
    return __version__ if __version__.count(".") == 2 else f"{__version__}.0"


def _rule(category: Category) -> dict[str, Any]:
    return {
        "id": f"smidr/{category}",
        "name": "".join(part.capitalize() for part in category.split("-")),
        "shortDescription": {"text": f"BitBake build: {category.replace('-', ' ')}"},
        "defaultConfiguration": {"level": "error"},
    }


def _result(finding: Finding, rules: list[Category]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": f"smidr/{finding.category}",
        "ruleIndex": rules.index(finding.category),
        "level": "error" if finding.severity is Severity.ERROR else "warning",
        "message": {"text": clip(_text(f"{title_of(finding)}\n{body_of(finding)}"), 8000)},
        "partialFingerprints": {"smidrFinding/v1": finding.fingerprint},
    }
    if location := _location(finding):
        result["locations"] = [location]
    properties = {"recipe": finding.recipe, "task": finding.task, "layer": finding.layer}
    if known := {key: _text(value) for key, value in properties.items() if value}:
        result["properties"] = known
    return result


def _location(finding: Finding) -> dict[str, Any] | None:
    if not finding.repo_path:
        return None
    physical: dict[str, Any] = {
        "artifactLocation": {"uri": quote(finding.repo_path), "uriBaseId": "%SRCROOT%"}
    }
    if finding.line:
        physical["region"] = {"startLine": finding.line}
        if finding.column:
            physical["region"]["startColumn"] = finding.column
    return {"physicalLocation": physical}


def _text(text: str) -> str:
    return printable(text, keep_newlines=True)
