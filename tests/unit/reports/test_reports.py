from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from smidr_ci.builds.model import (
    ArtifactRecord,
    BuildRecord,
    BuildState,
    SstateSummary,
    StageRecord,
)
from smidr_ci.diagnosis.model import (
    Category,
    Consequence,
    Diagnosis,
    ExcerptLine,
    Finding,
    Severity,
    Summary,
)
from smidr_ci.reports.codequality import render_codequality
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.formats import FORMATS
from smidr_ci.reports.github import check_annotations, render_workflow_commands
from smidr_ci.reports.junit import render_junit
from smidr_ci.reports.markdown import COMMENT_LIMIT, render_markdown
from smidr_ci.reports.sarif import render_sarif
from smidr_ci.reports.text import render_text

FINDING = Finding(
    category=Category.COMPILE,
    severity=Severity.ERROR,
    message="| src/a.c:9:2: error: expected ';'",
    rule="compiler-error",
    recipe="demo",
    version="1.0",
    task="do_compile",
    file="/smidr/layers/meta-demo/recipes/demo/demo_1.0.bb",
    line=9,
    column=2,
    repo_path="recipes/demo/demo_1.0.bb",
    layer="meta-demo",
    hint="Mend the first error.",
    excerpt=(ExcerptLine(41, 900, "| make"), ExcerptLine(42, 907, "| src/a.c:9:2: error")),
    log="console",
    log_line=42,
    task_log="/smidr/build/tmp/log.do_compile.7",
    reproduce="bitbake -c compile -f demo",
    fingerprint="0123456789abcdef",
    consequences=(Consequence("later"),),
    consequence_count=3,
)
WARNING = replace(
    FINDING, severity=Severity.WARNING, category=Category.PACKAGE_QA, task="do_package_qa",
    message="WARNING: QA Issue: x", fingerprint="f2", excerpt=(), consequence_count=0,
)  # fmt: skip
HOSTILE = (
    "::add-mask::secret ##[add-mask]secret </table><script>alert(1)</script> ```\n# Title | cell "
    "\x1b[2J\x1b]0;t\x07 ]]> <!-- @everyone ![x](http://x) :tada: section_start:1:a\r\x1b[0K %0A"
)


def of(*findings: Finding) -> Diagnosis:
    return Diagnosis(findings, Summary())


def hostile() -> Diagnosis:
    finding = replace(
        FINDING, message=HOSTILE, hint=HOSTILE, recipe=HOSTILE, task=HOSTILE, file=HOSTILE,
        repo_path=HOSTILE, layer=HOSTILE, task_log=HOSTILE, reproduce=HOSTILE,
        excerpt=(ExcerptLine(1, 0, HOSTILE),),
    )  # fmt: skip
    return of(finding, replace(finding, severity=Severity.WARNING))


def test_text_shows_cause_place_hint_and_context() -> None:
    text = render_text(of(FINDING, WARNING))
    assert text.splitlines()[:3] == [
        "error: compile: demo 1.0, do_compile",
        "  > | src/a.c:9:2: error: expected ';'",
        "  file: recipes/demo/demo_1.0.bb:9:2  (layer meta-demo)",
    ]
    assert "  hint: Mend the first error." in text
    assert "        42 > | src/a.c:9:2: error" in text
    assert "warning: package-qa" in text


def test_text_of_a_log_without_findings_says_so() -> None:
    assert "no cause" in render_text(of())
    assert "succeeded" in render_text(Diagnosis((), Summary(succeeded=True)))


def test_text_holds_nothing_that_a_runner_or_terminal_would_obey() -> None:
    text = render_text(hostile())
    assert "\x1b" not in text
    assert "\r" not in text
    assert "##[" not in text
    assert not re.search(r"^\s*::", text, re.MULTILINE)


def test_workflow_commands_follow_githubs_escaping() -> None:
    (line,) = render_workflow_commands(of(FINDING)).splitlines()
    assert line.startswith(
        "::error title=compile%3A demo 1.0%2C do_compile,"
        "file=recipes/demo/demo_1.0.bb,line=9,col=2::"
    )
    assert "%0AMend the first error." in line


def test_workflow_commands_are_as_many_as_github_shows() -> None:
    text = render_workflow_commands(of(*[FINDING] * 30, *[WARNING] * 30))
    commands = [line.split(" ")[0] for line in text.splitlines()]
    assert commands == ["::error"] * 10 + ["::warning"] * 10


def test_a_hostile_log_adds_no_workflow_command() -> None:
    lines = render_workflow_commands(hostile()).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"]
    properties = lines[0].removeprefix("::error ").split("::")[0]
    assert "," not in properties.replace(",file=", "").replace(",line=", "").replace(",col=", "")


def test_check_annotations_come_in_requests_of_fifty() -> None:
    requests = check_annotations([FINDING] * 120)
    assert [len(request) for request in requests] == [50, 50, 20]
    assert requests[0][0] | {"message": "", "raw_details": ""} == {
        "path": "recipes/demo/demo_1.0.bb", "start_line": 9, "end_line": 9, "start_column": 2,
        "end_column": 2, "annotation_level": "failure", "title": "compile: demo 1.0, do_compile",
        "message": "", "raw_details": "",
    }  # fmt: skip
    assert check_annotations([replace(FINDING, repo_path=None)]) == []


def test_code_quality_issues_have_all_that_gitlab_asks_for() -> None:
    issues = json.loads(render_codequality(of(FINDING, FINDING, replace(WARNING, repo_path=None))))
    assert [issue["severity"] for issue in issues] == ["major", "major", "minor"]
    assert len({issue["fingerprint"] for issue in issues}) == 3
    assert issues[0]["location"] == {
        "path": "recipes/demo/demo_1.0.bb", "lines": {"begin": 9},
    }  # fmt: skip
    assert issues[2]["location"]["path"] == "smidr.yaml"


def test_junit_has_one_case_per_task() -> None:
    root = ET.fromstring(render_junit(of(FINDING, FINDING, WARNING)))
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.attrib["tests"] == "2"
    assert suite.attrib["failures"] == "1"
    cases = suite.findall("testcase")
    assert [case.attrib["name"] for case in cases] == ["demo:do_compile", "demo:do_package_qa"]
    assert len(cases[0].findall("failure")) == 2
    assert cases[1].find("system-out") is not None


def test_junit_of_a_hostile_log_is_well_formed_and_holds_its_text() -> None:
    root = ET.fromstring(render_junit(hostile()))
    assert "</table><script>" in "".join(root.itertext())


def test_junit_of_a_good_build_is_one_case_that_passed() -> None:
    root = ET.fromstring(render_junit(of()))
    assert len(root.findall(".//testcase")) == 1
    assert root.findall(".//failure") == []


# What OASIS sarif-v2.1.0 requires of the parts that the report uses.
_SARIF_PARTS = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {"type": "object", "required": ["driver"]},
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message", "ruleId", "ruleIndex", "level"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "partialFingerprints": {"additionalProperties": {"type": "string"}},
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.mark.parametrize("diagnosis", [of(), of(FINDING, WARNING), hostile()])
def test_sarif_is_valid(diagnosis: Diagnosis) -> None:
    document = json.loads(render_sarif(diagnosis))
    jsonschema.validate(document, _SARIF_PARTS)
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    for result in document["runs"][0]["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    schema = os.environ.get("SMIDR_TEST_SARIF_SCHEMA")
    if schema:
        jsonschema.validate(document, json.loads(Path(schema).read_text()))


def test_a_sarif_location_is_relative_and_quoted() -> None:
    finding = replace(FINDING, repo_path="a b/%.bb")
    document = json.loads(render_sarif(of(finding)))
    place = document["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b/%25.bb"
    assert place["region"] == {"startLine": 9, "startColumn": 2}


def test_markdown_of_a_hostile_log_holds_no_markup_of_its_own() -> None:
    text = render_markdown(hostile())
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside
    assert "</table" not in outside
    assert "@everyone" not in outside
    assert "![" not in outside
    assert "`" not in outside
    assert "\x1b" not in text
    # The fences are longer than any run of backticks in what they hold.
    assert text.count("````text") == 2


def test_markdown_fits_the_limit_and_always_names_the_cause() -> None:
    many = [replace(WARNING, message="w" * 5000, fingerprint=str(n)) for n in range(200)]
    big = replace(FINDING, excerpt=tuple(ExcerptLine(n, n, "x" * 900) for n in range(100)))
    for limit in (2_000, COMMENT_LIMIT):
        text = render_markdown(of(big, *many), limit=limit)
        assert len(text) <= limit
        assert "src/a.c:9:2: error: expected" in text


def test_markdown_tells_stages_reuse_and_image_sizes_with_their_difference() -> None:
    begun, ended = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, 5, tzinfo=UTC)

    def record(size: int, local: int) -> BuildRecord:
        return BuildRecord(
            build_id="c-00000000", customer="c", project="demo", targets=("image",),
            state=BuildState.COMPLETED, created=begun,
            stages=(StageRecord("building", begun, ended),),
            sstate=SstateSummary(100, local, 0, 100 - local, 0),
            artifacts=(ArtifactRecord("image.wic", size, "00"),),
            layer_commits={"meta-demo": "c0ffee"},
        )  # fmt: skip

    text = render_markdown(of(), facts_of(record(3 << 20, 80), record(2 << 20, 90)))
    assert "| building | 2 min 05 s |" in text
    assert "80 of 100 objects reused (80 %); previous build: 90 of 100" in text
    assert "| 3.0 MiB | +1.0 MiB |" in text
    assert "c0ffee" in text


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_renders_findings_and_none(name: str) -> None:
    assert FORMATS[name](of(FINDING, WARNING))
    FORMATS[name](of())
