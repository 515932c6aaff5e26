"""`smidr ci build` as a job of an ordinary gitlab-runner runs it, with real BitBake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from docker import APIClient

from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    make_hello_project: Callable[[Path], HelloProject],
) -> HelloProject:
    return make_hello_project(tmp_path_factory.mktemp("ci"))


@pytest.fixture(scope="module")
def smidr(
    tmp_path_factory: pytest.TempPathFactory, project: HelloProject, docker_client: APIClient
) -> Smidr:
    assert docker_client.ping()
    variables = {
        "GITLAB_CI": "true",
        "CI_PROJECT_DIR": str(project.work),
        "CI_PROJECT_PATH_SLUG": "acme-bsp-distro",
        "CI_PROJECT_URL": "https://gitlab.example.com/acme/bsp/distro",
        "CI_JOB_URL": "https://gitlab.example.com/acme/bsp/distro/-/jobs/1",
        "CI_COMMIT_SHA": "1" * 40,
        "SMIDR_CONFIG": "smidr.yaml",
        "SMIDR_TARGET": "hello-image",
    }
    return Smidr(tmp_path_factory.mktemp("home"), project.work, variables)


def test_a_job_builds_and_leaves_image_log_and_reports_in_the_project(
    smidr: Smidr, project: HelloProject
) -> None:
    answer = smidr("ci", "build")
    assert answer.code == 0, answer.text
    assert answer.err.count("section_start:") == answer.err.count("section_end:") >= 3
    assert smidr.newest()["customer"] == "acme-bsp-distro"
    images = list((project.work / "smidr-artifacts").rglob("hello-image-*.cpio.gz"))
    assert images
    reports = project.work / "smidr-reports"
    assert json.loads((reports / "gl-code-quality-report.json").read_text()) == []
    links = json.loads((reports / "gl-annotations.json").read_text())
    assert any("hello-image" in item["external_link"]["url"] for item in links["Images"])
    metrics = (reports / "metrics.txt").read_text()
    assert "smidr_build_seconds" in metrics
    assert "smidr_artifact_bytes{" in metrics
    assert b"NOTE:" in (reports / "console.log").read_bytes()


def test_a_recipe_that_fails_is_a_finding_and_exit_code_1(
    smidr: Smidr, project: HelloProject
) -> None:
    recipe = next(project.layer.rglob("hello_*.bb")).relative_to(project.root)
    text = (project.root / recipe).read_text()
    (project.root / recipe).write_text(text + "\ndo_compile:append() {\n    false\n}\n")
    project.prepare()
    answer = smidr("ci", "build")
    assert answer.code == 1, answer.text
    reports = project.work / "smidr-reports"
    issues = json.loads((reports / "gl-code-quality-report.json").read_text())
    assert any("hello" in issue["description"] for issue in issues)
    failures = list(ET.fromstring((reports / "junit.xml").read_text()).iter("failure"))
    assert failures
    assert not (project.work / "smidr-artifacts").exists()
