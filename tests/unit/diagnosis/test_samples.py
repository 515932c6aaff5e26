"""Accuracy on labelled failures of public projects, where they are at hand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import Finding

_SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "failure-samples"

pytestmark = pytest.mark.skipif(
    not _SAMPLES.is_dir(), reason=f"labelled samples are not at hand ({_SAMPLES})"
)


@dataclass(frozen=True)
class Sample:
    name: str
    expected: dict[str, Any]
    first: Finding | None


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    found = []
    for folder in sorted(_SAMPLES.iterdir()):
        if not (folder / "expect.json").is_file():
            continue
        logs = [path for path in (folder / "task.log",) if path.is_file()]
        findings = diagnose(folder / "console.log", task_logs=logs).findings
        expected = json.loads((folder / "expect.json").read_text())
        found.append(Sample(folder.name, expected, findings[0] if findings else None))
    assert found
    return found


def _plain(text: str | None) -> str:
    text = re.sub(r"^\s*[|>]+\s*", "", text or "")
    return " ".join(re.sub(r"^(?:ERROR|WARNING):\s*", "", text).split())


def _has_category(sample: Sample) -> bool:
    allowed = [sample.expected["category"], *sample.expected.get("also_accept", [])]
    return sample.first is not None and sample.first.category in allowed


def _has_message(sample: Sample) -> bool:
    also = sample.expected.get("root_cause_also") or []
    wanted = [sample.expected["root_cause"], *([also] if isinstance(also, str) else also)]
    message = _plain(sample.first.message if sample.first else None)
    return any(message and (_plain(text) in message or message in _plain(text)) for text in wanted)


def _has_place(sample: Sample) -> bool:
    first = sample.first
    wanted = (sample.expected["recipe"], sample.expected["task"])
    return first is not None and (first.recipe, first.task) == wanted


@pytest.mark.parametrize(
    ("question", "floor"), [(_has_category, 0.98), (_has_message, 0.96), (_has_place, 0.96)]
)
def test_accuracy_does_not_fall(samples: list[Sample], question: Any, floor: float) -> None:
    wrong = [sample.name for sample in samples if not question(sample)]
    assert 1 - len(wrong) / len(samples) >= floor, wrong


def test_a_cause_that_the_text_does_not_hold_is_not_claimed(samples: list[Sample]) -> None:
    hidden = [sample for sample in samples if not sample.expected["cause_visible"]]
    assert hidden
    for sample in hidden:
        assert sample.first is not None
        assert sample.first.hint
