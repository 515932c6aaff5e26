"""JUnit XML: one case per failed or warned task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree as ET

from smidr_ci.diagnosis.model import Diagnosis, Finding, Severity
from smidr_ci.reports.escape import clip
from smidr_ci.reports.wording import body_of, place_of, title_of
from smidr_ci.text import printable

__all__ = ["render_junit"]

# XML 1.0 allows no other characters, not even escaped.
_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_CASES: Final = 1000


def render_junit(diagnosis: Diagnosis, *, suite: str = "smidr") -> str:
    """The XML document; a build without findings is one case that passed."""
    cases: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings[:_MAX_CASES]:
        cases.setdefault(_case_name(finding), []).append(finding)
    failed = sum(_is_failed(findings) for findings in cases.values())
    root = ET.Element("testsuites")
    element = ET.SubElement(
        root,
        "testsuite",
        _attributes(
            {
                "name": suite,
                "tests": str(max(1, len(cases))),
                "failures": str(failed),
                "errors": "0",
                "skipped": "0",
            }
        ),
    )
    for name, findings in cases.items():
        _add_case(element, name, findings)
    if not cases:
        ET.SubElement(element, "testcase", {"classname": suite, "name": "build"})
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case_name(finding: Finding) -> str:
    return ":".join(part for part in (finding.recipe, finding.task) if part) or "build"


def _is_failed(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def _add_case(suite: ET.Element, name: str, findings: list[Finding]) -> None:
    first = findings[0]
    attributes = {"classname": str(first.category), "name": name}
    if first.repo_path:
        attributes["file"] = first.repo_path
        if first.line:
            attributes["line"] = str(first.line)
    case = ET.SubElement(suite, "testcase", _attributes(attributes))
    notes: list[str] = []
    for finding in findings:
        text = _clean("\n".join(_details(finding)))
        if finding.severity is Severity.ERROR:
            head = {"message": clip(finding.message, 500), "type": str(finding.category)}
            ET.SubElement(case, "failure", _attributes(head)).text = text
        else:
            notes.append(text)
    if notes:
        ET.SubElement(case, "system-out").text = "\n\n".join(notes)


def _details(finding: Finding) -> list[str]:
    lines = [title_of(finding), body_of(finding)]
    if place := place_of(finding):
        lines.append(f"File: {place}")
    if finding.excerpt:
        lines += ["", *(f"{line.number}: {line.text}" for line in finding.excerpt)]
    return lines


def _attributes(values: Mapping[str, str]) -> dict[str, str]:
    return {key: _clean(value) for key, value in values.items()}


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", printable(text, keep_newlines=True))
