"""What is said about failures that were provoked with real BitBake (`make record-failures`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import Diagnosis, DiagnosisContext, Finding, Severity

_FAILURES: Final = Path(__file__).parents[2] / "data" / "failures"

KNOWN_WRONG: Final[dict[str, str]] = {}
"""Recordings whose diagnosis is wrong today, and how; a fixed one must be taken out."""


def _cases() -> list[Any]:
    return [
        pytest.param(
            folder,
            id=folder.name,
            marks=pytest.mark.xfail(reason=KNOWN_WRONG[folder.name], strict=True)
            if folder.name in KNOWN_WRONG
            else (),
        )
        for folder in sorted(_FAILURES.iterdir())
    ]


def _diagnose(folder: Path, context: dict[str, Any]) -> Diagnosis:
    task_logs = sorted(folder.glob("log.do_*"))
    known = DiagnosisContext(**context)
    return diagnose(folder / "console.log", task_logs=task_logs, context=known)


def _plain(message: str) -> str:
    """The line without BitBake's label and the mark of quoted logs, which both may have."""
    line = re.sub(r"^\|?\s*(?:(?:ERROR|WARNING|NOTE): )?(?:\S+ do_\w+: )?", "", message.strip())
    return " ".join(line.split())


def _says(message: str, expected: str) -> bool:
    said, wanted = _plain(message), _plain(expected)
    # A message may be cut at a length, but must hold most of the line.
    return wanted in said or (said in wanted and 2 * len(said) > min(len(wanted), 400))


def _place(finding: Finding) -> dict[str, Any]:
    names = ("recipe", "version", "task", "line", "retryable")
    return {name: getattr(finding, name) for name in names}


def _is_file(found: str | None, expected: str | None) -> bool:
    if expected is None or found is None:
        return expected is found
    return found == expected or (not expected.startswith("/") and found.endswith(f"/{expected}"))


@pytest.mark.parametrize("folder", _cases())
def test_recorded_failure_is_diagnosed(folder: Path) -> None:
    expected = json.loads((folder / "expect.json").read_text())
    findings = _diagnose(folder, expected["context"]).findings
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if expected["category"] is None:
        assert errors == []
        return
    assert errors, "nothing found"
    first = errors[0]
    assert first.category in {expected["category"], *expected["also_accept"]}, first
    assert _says(first.message, expected["message"]), first.message
    assert _place(first) == {name: expected[name] for name in _place(first)}
    assert _is_file(first.file, expected["file"]), first.file
    for message in expected["also"]:
        assert any(_says(finding.message, message) for finding in errors), message
    if expected["consequences_of_one"]:
        assert [finding.message for finding in errors[1:]] == []


def test_recordings_are_small_and_hold_nothing_of_the_recording_machine() -> None:
    machine = re.compile(r"/(?:work|root|home/\w+)/(?:main|\.|shared)|(?<!build)/tmp/\w+/\w+")
    for path in _FAILURES.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert len(text) < 70_000, path
            assert not machine.search(text), (path, machine.search(text))
