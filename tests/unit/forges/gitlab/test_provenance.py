"""A job that asks for metadata gets a statement of provenance into its archives."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import UsageError
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.job_uploads import JobUploads
from smidr_ci.forges.gitlab.payload import Artifact, GitInfo, Job, JobInfo, Variable
from smidr_ci.forges.gitlab.ports import Outcome
from smidr_ci.forges.gitlab.transport import Transport
from tests.fakes.artifact_server import ArtifactServer, serve_artifacts
from tests.fakes.job_log import RecordedLog

SHA = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
SERVER = "https://gitlab.example.com"


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with serve_artifacts() as running:
        yield running


def no_build(build_id: str) -> Any:
    raise UsageError(f"there is no build {build_id}")


def upload(server: ArtifactServer, root: Path, *artifacts: Artifact, **variables: str) -> None:
    project = root / "project"
    (project / "out").mkdir(parents=True)
    (project / "out" / "image.wic").write_bytes(b"image")
    (project / "out" / "link").symlink_to("image.wic")
    known = {
        "CI_SERVER_URL": SERVER,
        "CI_PROJECT_URL": f"{SERVER}/acme/distro",
        "CI_RUNNER_ID": "12",
        "CI_RUNNER_DESCRIPTION": "lab",
        "CI_JOB_STARTED_AT": "2026-11-20T20:00:00Z",
        "PASSWORD": "hunter22",
        **variables,
    }
    transport = Transport(server.base)
    job = Job(
        id=7,
        token="t",
        info=JobInfo(name="image: [qemuarm64]"),
        git_info=GitInfo(sha=SHA),
        variables=tuple(Variable(key, value) for key, value in known.items()),
        artifacts=artifacts or (Artifact(name="images", paths=("out",)),),
    )
    try:
        JobUploads(RunnerClient(transport), root / "scratch", no_build).run(
            job, project, None, Outcome(succeeded=True), CancelToken(), RecordedLog()
        )
    finally:
        transport.close()


def names_in(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_a_statement_with_checksums_goes_into_the_archive(
    server: ArtifactServer, tmp_path: Path
) -> None:
    upload(server, tmp_path, RUNNER_GENERATE_ARTIFACTS_METADATA="true")
    (sent,) = server.uploads
    assert names_in(sent.content) == [
        "images-metadata.json", "out/", "out/image.wic", "out/link",
    ]  # fmt: skip
    text = zipfile.ZipFile(io.BytesIO(sent.content)).read("images-metadata.json").decode()
    found = json.loads(text)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    digest = hashlib.sha256(b"image").hexdigest()
    assert found["subject"] == [{"name": "out/image.wic", "digest": {"sha256": digest}}]
    definition, details = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    outside = definition["externalParameters"]
    assert outside["entryPoint"] == "image: [qemuarm64]"
    assert outside["source"] == f"{SERVER}/acme/distro"
    assert outside["PASSWORD"] == ""
    assert "hunter22" not in text
    assert definition["internalParameters"]["job"] == "7"
    assert definition["internalParameters"]["name"] == "lab"
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": SHA}
    assert details["builder"]["id"] == f"{SERVER}/-/runners/12"
    assert details["metadata"]["invocationId"] == "7"
    assert details["metadata"]["startedOn"] == "2026-11-20T20:00:00Z"
    assert not (tmp_path / "project" / "images-metadata.json").exists()


@pytest.mark.parametrize("value", ["", "false", "0"])
def test_a_job_that_does_not_ask_for_it_gets_none(
    server: ArtifactServer, tmp_path: Path, value: str
) -> None:
    upload(server, tmp_path, RUNNER_GENERATE_ARTIFACTS_METADATA=value)
    assert names_in(server.uploads[0].content) == ["out/", "out/image.wic", "out/link"]


def test_reports_stay_as_they_are(server: ArtifactServer, tmp_path: Path) -> None:
    report = Artifact(name="r.json", paths=("out/image.wic",), type="codequality", format="raw")
    upload(server, tmp_path, report, RUNNER_GENERATE_ARTIFACTS_METADATA="true")
    assert server.uploads[0].content == b"image"


def test_what_the_job_planted_under_the_name_is_not_sent(
    server: ArtifactServer, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "images-metadata.json").write_text("forged")
    everything = Artifact(name="images", paths=("*.json", "out"))
    upload(server, tmp_path, everything, RUNNER_GENERATE_ARTIFACTS_METADATA="true")
    archive = zipfile.ZipFile(io.BytesIO(server.uploads[0].content))
    assert archive.namelist().count("images-metadata.json") == 1
    subject = json.loads(archive.read("images-metadata.json"))["subject"]
    assert [item["name"] for item in subject] == ["out/image.wic"]
