"""Reports are what GitLab's parsers take, and reach it without a copy in the project."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from smidr_ci.bitbake.tasks import SstateSummary
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState, StageRecord, Work
from smidr_ci.cancel import CancelToken
from smidr_ci.diagnosis.model import Category, Diagnosis, Finding, Severity, Summary
from smidr_ci.errors import FailureKind
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.job_uploads import JobUploads
from smidr_ci.forges.gitlab.payload import Artifact, GitInfo, Job, Variable
from smidr_ci.forges.gitlab.ports import Outcome, Uploads
from smidr_ci.forges.gitlab.reports import (
    ANNOTATIONS,
    CODE_QUALITY,
    JUNIT,
    METRICS,
    JobPage,
    write_reports,
)
from smidr_ci.forges.gitlab.transport import Transport
from tests.fakes.artifact_server import ArtifactServer, serve_artifacts
from tests.fakes.job_log import RecordedLog

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
FINDING = Finding(
    Category.COMPILE,
    Severity.ERROR,
    "error: unknown type 'foo' <b>@all</b> \x1b[31m",
    recipe="hello",
    task="do_compile",
    repo_path="meta-x/recipes/hello.c",
    line=12,
    fingerprint="abc",
)


def a_record(state: BuildState = BuildState.COMPLETED, **changes: Any) -> BuildRecord:
    record = BuildRecord(
        build_id="gitlab-12345678",
        customer="gitlab",
        project="distro",
        targets=("core-image-minimal",),
        state=state,
        created=BEGUN,
        started=BEGUN,
        ended=BEGUN + timedelta(seconds=90),
        stages=(
            StageRecord("building", BEGUN, BEGUN + timedelta(seconds=30)),
            StageRecord("building", BEGUN, BEGUN + timedelta(seconds=40)),
        ),
        tasks={"total": 100, "executed": 10, "from_sstate": 90},
        sstate=SstateSummary(wanted=50, local=40, mirrors=5, missed=5, current=3),
        work=Work(executed_s=12.5, spared_s=900, restored=45, timed=45),
        artifacts=(ArtifactRecord('images/m/core "x"-20260101000000.wic.zst', 3_000_000, "0"),),
    )
    return replace(record, **changes)


def plain(*findings: Finding) -> tuple[Any, ...]:
    return tuple(json.loads(Diagnosis(findings, Summary()).to_json())["findings"])


PAGE = JobPage("https://g.example/p/-/jobs/1", "https://g.example/p", "1" * 40, "ci/smidr.yaml")


def written(tmp_path: Path, record: BuildRecord, page: JobPage = PAGE) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    write_reports(folder, record, page)
    return folder


def test_metrics_are_openmetrics_and_comparable_between_builds(tmp_path: Path) -> None:
    text = (written(tmp_path, a_record()) / METRICS).read_text()
    assert text.endswith("# EOF\n")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # it has no types
        for sample in family.samples
    }
    assert samples["smidr_build_seconds",] == 90
    assert samples["smidr_stage_seconds", "building"] == 70
    assert samples["smidr_sstate_reuse_ratio",] == 0.9
    assert samples["smidr_tasks", "from_sstate"] == 90
    assert samples["smidr_task_seconds", "executed"] == 12.5
    assert samples["smidr_task_seconds", "spared"] == 900
    assert samples["smidr_artifact_bytes", 'images/m/core "x".wic.zst'] == 3_000_000


def test_annotations_link_to_images_findings_and_the_summary(tmp_path: Path) -> None:
    (tmp_path / "meta-x/recipes").mkdir(parents=True)
    (tmp_path / "meta-x/recipes/hello.c").touch()
    record = a_record(BuildState.FAILED, findings=plain(FINDING))
    page = replace(PAGE, directory=tmp_path, links=(("Store", "javascript:alert(1)"),))
    found = json.loads((written(tmp_path, record, page) / ANNOTATIONS).read_text())
    (image,) = found["Images"]
    assert image["external_link"]["url"] == (
        "https://g.example/p/-/jobs/1/artifacts/file/smidr-artifacts/"
        "images/m/core%20%22x%22-20260101000000.wic.zst"
    )
    (finding,) = found["Findings"]
    assert finding["external_link"]["url"].endswith("1/meta-x/recipes/hello.c#L12")
    (summary,) = found["Build"]
    assert summary["external_link"]["url"].endswith("/smidr-reports/summary.md")


def test_a_finding_in_another_repository_is_no_link(tmp_path: Path) -> None:
    record = a_record(BuildState.FAILED, findings=plain(FINDING))
    page = replace(PAGE, directory=tmp_path)
    assert "Findings" not in json.loads((written(tmp_path, record, page) / ANNOTATIONS).read_text())


def test_findings_are_code_quality_and_failed_cases(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record(BuildState.FAILED, findings=plain(FINDING)))
    (issue,) = json.loads((folder / CODE_QUALITY).read_text())
    assert issue["location"] == {"path": "meta-x/recipes/hello.c", "lines": {"begin": 12}}
    assert issue["severity"] == "major"
    suite = ET.fromstring((folder / JUNIT).read_text())
    (case,) = suite.iter("testcase")
    assert case.get("name") == "hello:do_compile"
    assert case.find("failure") is not None


def test_a_failure_that_no_log_tells_of_is_not_shown_as_passed(tmp_path: Path) -> None:
    record = a_record(
        BuildState.FAILED,
        failure_kind=FailureKind.LAYERS,
        failure_message="layer x can't be fetched\n  Check its URL.",
    )
    folder = written(tmp_path, record)
    (issue,) = json.loads((folder / CODE_QUALITY).read_text())
    assert issue["location"]["path"] == "ci/smidr.yaml"
    assert "layer x can't be fetched" in issue["description"]
    assert len(list(ET.fromstring((folder / JUNIT).read_text()).iter("failure"))) == 1


def test_a_good_build_has_a_passed_case_and_no_issue(tmp_path: Path) -> None:
    folder = written(tmp_path, a_record())
    assert json.loads((folder / CODE_QUALITY).read_text()) == []
    (case,) = ET.fromstring((folder / JUNIT).read_text()).iter("testcase")
    assert list(case) == []


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with serve_artifacts() as running:
        yield running


JOB = Job(
    id=7,
    token="t",
    git_info=GitInfo(sha="1" * 40),
    variables=(Variable("CI_JOB_URL", "https://g.example/p/-/jobs/1"), Variable("M", "qemuarm64")),
    artifacts=(
        Artifact(
            name="images-$M", paths=("smidr-artifacts/", "$CI_PROJECT_DIR/own"), when="always"
        ),
        Artifact(
            name="q.json",
            paths=(f"smidr-reports/{CODE_QUALITY}",),
            when="always",
            type="codequality",
            format="raw",
        ),
        Artifact(
            name="junit.xml",
            paths=(f"smidr-reports/{JUNIT}",),
            when="always",
            type="junit",
            format="gzip",
        ),
    ),
)


def upload(server: ArtifactServer, root: Path, job: Job, outcome: Outcome) -> RecordedLog:
    artifacts = root / "store"
    (artifacts / "images").mkdir(parents=True, exist_ok=True)
    (artifacts / "images/a.wic").write_bytes(b"image")
    project = root / "job/project"
    log, transport = RecordedLog(), Transport(server.base)
    try:
        uploads: Uploads = JobUploads(
            client=RunnerClient(transport),
            scratch=root / "scratch",
            record_of=lambda _: a_record(),
            console_of=lambda _: root / "console.log",
            pause=lambda _: False,
        )
        uploads.run(job, project, artifacts, outcome, CancelToken(), log)
    finally:
        transport.close()
    assert list((root / "scratch").iterdir()) == []
    return log


def test_a_builds_artifacts_and_reports_go_up_without_lying_in_the_project(
    server: ArtifactServer, tmp_path: Path
) -> None:
    project = tmp_path / "job/project"
    project.mkdir(parents=True)
    (project / "own").write_text("own")
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / CODE_QUALITY).write_text("forged")
    (project / "smidr-reports").symlink_to(planted)
    log = upload(server, tmp_path, JOB, Outcome(succeeded=True, build_id="x"))
    archive, quality, junit = server.uploads
    assert archive.file_name == "images-qemuarm64.zip"
    names = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert names == [
        "own", "smidr-artifacts/", "smidr-artifacts/images/", "smidr-artifacts/images/a.wic",
    ]  # fmt: skip
    assert quality.content == b"[]\n"
    assert b"<testcase" in gzip.decompress(junit.content)
    assert sorted(item.name for item in project.iterdir()) == ["own", "smidr-reports"]
    assert log.sections == ["upload_artifacts_on_success"]


def test_the_whole_console_goes_up_with_the_reports(server: ArtifactServer, tmp_path: Path) -> None:
    (tmp_path / "job/project").mkdir(parents=True)
    (tmp_path / "console.log").write_text("all of it")
    job = replace(JOB, artifacts=(Artifact(paths=("smidr-reports",)),))
    upload(server, tmp_path, job, Outcome(succeeded=True, build_id="x"))
    archive = zipfile.ZipFile(io.BytesIO(server.uploads[0].content))
    assert archive.read("smidr-reports/console.log") == b"all of it"
    assert len(archive.namelist()) == 7
    one = replace(JOB, artifacts=(Artifact(paths=("smidr-reports/*.log",), exclude=("**/x",)),))
    upload(server, tmp_path, one, Outcome(succeeded=True, build_id="x"))
    archive = zipfile.ZipFile(io.BytesIO(server.uploads[1].content))
    assert archive.namelist() == ["smidr-reports/console.log"]


def test_the_same_again_is_byte_for_byte_the_same(server: ArtifactServer, tmp_path: Path) -> None:
    (tmp_path / "job/project").mkdir(parents=True)
    for _ in range(2):
        upload(server, tmp_path, JOB, Outcome(succeeded=False, build_id="x"))
    first, second = server.uploads[:3], server.uploads[3:]
    assert [item.content for item in first[1:]] == [item.content for item in second[1:]]


def test_a_job_without_a_build_uploads_its_own_files(
    server: ArtifactServer, tmp_path: Path
) -> None:
    (tmp_path / "job/project").mkdir(parents=True)
    (tmp_path / "job/project/own").write_text("own")
    log = upload(server, tmp_path, JOB, Outcome(succeeded=False))
    (archive,) = server.uploads
    assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist() == ["own"]
    assert log.sections == ["upload_artifacts_on_failure"]
    assert log.text.count("no matching files") == 3


def test_a_path_is_found_as_the_lines_of_the_job_know_it(
    server: ArtifactServer, tmp_path: Path
) -> None:
    (tmp_path / "job/project").mkdir(parents=True)
    (tmp_path / "job/project/own").write_text("own")
    own = Artifact(paths=("$OUT",), when="always")
    variables = (Variable("OUT", "/smidr/src/own"),)
    log = upload(
        server, tmp_path, replace(JOB, artifacts=(own,), variables=variables), Outcome(True)
    )
    assert zipfile.ZipFile(io.BytesIO(server.uploads[0].content)).namelist() == ["own"]
    assert str(tmp_path) not in log.text


def test_nothing_to_upload_is_no_section(server: ArtifactServer, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    log = upload(server, tmp_path, replace(JOB, artifacts=()), Outcome(succeeded=True))
    assert log.sections == []
