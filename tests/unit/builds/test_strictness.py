"""`build.fail_on_warnings`: which warnings fail a build."""

from __future__ import annotations

from typing import get_args

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.strictness import judge_warnings
from smidr_ci.config.values import WarningCategory
from smidr_ci.diagnosis.model import Category, Finding, Severity
from smidr_ci.diagnosis.rules.catalogue import RULES
from smidr_ci.errors import FailureKind


def warning(category: Category = Category.PACKAGE_QA, **more: str) -> Finding:
    return Finding(category, Severity.WARNING, "QA Issue: x", **more)  # type: ignore[arg-type]  # texts only


def test_the_categories_of_the_config_are_those_of_the_rules() -> None:
    assert set(get_args(WarningCategory)) == {rule.category for rule in RULES if rule.warning}


@pytest.mark.parametrize("unwanted", [False, (), ("fetch",)])
def test_other_warnings_fail_nothing(unwanted: bool | tuple[str, ...]) -> None:
    outcome, findings = judge_warnings(unwanted, 1, [warning()])
    assert outcome.state is BuildState.COMPLETED
    assert findings == (warning(),)


@pytest.mark.parametrize("unwanted", [True, ("package-qa",)])
def test_an_unwanted_warning_fails_the_build_and_comes_first(
    unwanted: bool | tuple[str, ...],
) -> None:
    qa = [warning(recipe="hello", task="do_package"), warning(recipe="init")]
    others = [] if unwanted is True else [warning(Category.FETCH)]
    outcome, findings = judge_warnings(unwanted, 3, [*others, *qa])
    assert (outcome.state, outcome.kind) == (BuildState.FAILED, FailureKind.BUILD)
    assert outcome.message == (
        "warning: hello:do_package: QA Issue: x (and 1 more) (build.fail_on_warnings)"
    )
    assert [item.severity for item in findings[:2]] == [Severity.ERROR] * 2
    assert list(findings[2:]) == others


def test_a_warning_without_a_name_fails_only_when_any_does() -> None:
    outcome, _ = judge_warnings(True, 2, [])
    assert outcome.message == "BitBake warned 2 times (build.fail_on_warnings)"
    assert judge_warnings(("package-qa",), 2, [])[0].state is BuildState.COMPLETED
    assert judge_warnings(True, 0, [])[0].state is BuildState.COMPLETED
