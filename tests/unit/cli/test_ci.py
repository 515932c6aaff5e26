"""`smidr ci build` leaves reports where the template names them, whatever happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cli.gitlab_sections import SectionWatcher
from smidr_ci.files import make_marked_dir
from smidr_ci.forges.gitlab import reports
from tests.fakes.clock import FakeClock
from tests.fakes.smidr_process import Smidr

TEMPLATE = Path(__file__).parents[3] / "gitlab-template.yml"


@pytest.fixture
def smidr(tmp_path: Path) -> Smidr:
    project = tmp_path / "project"
    project.mkdir()
    return Smidr(
        tmp_path / "home",
        project,
        {"CI_PROJECT_DIR": str(project), "GITLAB_CI": "true", "CI_JOB_URL": "https://g/x/-/jobs/1"},
    )


def test_a_config_with_a_fault_gives_its_exit_code_and_a_finding_on_it(smidr: Smidr) -> None:
    (smidr.directory / "smidr.yaml").write_text("name: x\nnonsense: 1\n")
    answer = smidr("ci", "build")
    assert answer.code == 2, answer.text
    assert "nonsense" in answer.err
    folder = smidr.directory / "smidr-reports"
    (issue,) = json.loads((folder / reports.CODE_QUALITY).read_text())
    assert issue["location"] == {"path": "smidr.yaml", "lines": {"begin": 2}}
    assert "nonsense" in issue["description"]
    assert len(list(ET.fromstring((folder / reports.JUNIT).read_text()).iter("failure"))) == 1
    json.loads((folder / reports.ANNOTATIONS).read_text())
    assert (folder / reports.METRICS).read_text().endswith("# EOF\n")


def test_variables_name_the_config(smidr: Smidr) -> None:
    answer = smidr("ci", "build", SMIDR_CONFIG="ci/other.yaml")
    assert answer.code == 2
    assert "ci/other.yaml" in answer.err
    (issue,) = json.loads((smidr.directory / "smidr-reports" / reports.CODE_QUALITY).read_text())
    assert issue["location"]["path"] == "ci/other.yaml"


def test_reports_of_an_earlier_job_are_taken_away(smidr: Smidr) -> None:
    for name in ("smidr-reports", "smidr-artifacts"):
        (make_marked_dir(smidr.directory / name) / "old").touch()
    smidr("ci", "build")
    assert not (smidr.directory / "smidr-reports/old").exists()
    assert not (smidr.directory / "smidr-artifacts").exists()


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_what_is_not_smidrs_is_left_alone(smidr: Smidr, tmp_path: Path, kind: str) -> None:
    other = make_marked_dir(tmp_path / "other")
    (other / "precious").touch()
    place = smidr.directory / "smidr-artifacts"
    if kind == "link":
        place.symlink_to(other)
    else:
        place.mkdir()
        (place / "precious").touch()
    answer = smidr("ci", "build")
    assert answer.code == 2
    assert "in the way" in answer.err
    assert (place / "precious").exists()


def test_a_project_directory_that_is_none_is_told(smidr: Smidr) -> None:
    answer = smidr("ci", "build", CI_PROJECT_DIR="/nonexistent/x")
    assert answer.code == 2
    assert "CI_PROJECT_DIR" in answer.err


def test_stages_are_sections_that_open_and_close_once(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = SectionWatcher(FakeClock())
    states = [BuildState.QUEUED, BuildState.PREPARING, BuildState.BUILDING, BuildState.PREPARING]
    for state in states:
        watcher.changed(a_record(state))
        watcher.note(f"in {state}")
    watcher.changed(a_record(BuildState.FAILED))
    watcher.close()
    err = capsys.readouterr().err
    starts = re.findall(r"section_start:(\d+):([\w.-]+)\r\x1b\[0K", err)
    ends = re.findall(r"section_end:(\d+):([\w.-]+)\r\x1b\[0K", err)
    assert [name for _, name in starts] == [
        "smidr_queued_1", "smidr_preparing_2", "smidr_building_3", "smidr_preparing_4",
    ]  # fmt: skip
    assert [name for _, name in ends] == [name for _, name in starts]
    assert starts[0][0] == "1767323045"


def a_record(state: BuildState) -> BuildRecord:
    return BuildRecord(
        build_id="x-12345678",
        customer="x",
        project="p",
        targets=("t",),
        state=state,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )


def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text())
    return found


def test_the_template_is_valid_for_gitlabs_own_schema(tmp_path: Path) -> None:
    user = {
        "include": {"local": "gitlab-template.yml"},
        "image": {
            "extends": ".smidr-build",
            "parallel": {"matrix": [{"SMIDR_MACHINE": ["qemux86-64", "qemuarm64"]}]},
        },
    }
    whole = tmp_path / "whole.yml"
    whole.write_text(yaml.safe_dump({**template(), "real": template()[".smidr-build"]}))
    (tmp_path / "user.yml").write_text(yaml.safe_dump({"job": user["image"]}))
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "check_jsonschema",
            "--builtin-schema", "vendor.gitlab-ci",
            str(TEMPLATE), str(whole), str(tmp_path / "user.yml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_would_refuse_a_wrong_template(tmp_path: Path) -> None:
    wrong = {"real": {**template()[".smidr-build"], "retry": {"max": 9, "when": ["never"]}}}
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(wrong))
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "check_jsonschema",
            "--builtin-schema", "vendor.gitlab-ci", str(tmp_path / "wrong.yml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1


def test_the_template_names_the_files_that_are_written() -> None:
    job = template()[".smidr-build"]
    assert job["script"] == ["smidr ci build"]
    assert job["artifacts"]["reports"] == {
        "codequality": f"{reports.REPORTS}/{reports.CODE_QUALITY}",
        "junit": f"{reports.REPORTS}/{reports.JUNIT}",
        "annotations": f"{reports.REPORTS}/{reports.ANNOTATIONS}",
        "metrics": f"{reports.REPORTS}/{reports.METRICS}",
    }
    assert set(job["artifacts"]["paths"]) == {f"{reports.REPORTS}/", f"{reports.ARTIFACTS}/"}
