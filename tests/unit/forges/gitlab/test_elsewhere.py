"""What is too big for GitLab goes to the operator's store, and people get links."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.errors import BuildFailedError, CancelledError
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.job_uploads import JobUploads
from smidr_ci.forges.gitlab.jobpage import page_of
from smidr_ci.forges.gitlab.merge_requests import note_of
from smidr_ci.forges.gitlab.payload import Artifact, Job, JobInfo, Variable
from smidr_ci.forges.gitlab.ports import Outcome
from smidr_ci.forges.gitlab.transport import Transport
from smidr_ci.trust import Trust
from tests.fakes.artifact_server import ArtifactServer, Fault, serve_artifacts
from tests.fakes.job_log import RecordedLog

IMAGE = os.urandom(1 << 20) * 3
SHA256 = hashlib.sha256(IMAGE).hexdigest()
LARGE = Fault(413, message="Request Entity Too Large")
ARCHIVE = Artifact(name="images", paths=("smidr-artifacts/",), when="always")
LINKS = Artifact(
    name="gl-annotations.json",
    paths=("smidr-reports/gl-annotations.json",),
    when="always",
    type="annotations",
    format="gzip",
)
BUILD = "lab-12345678"


@dataclass
class Lab:
    """One job whose build left an image, and the agent's settings."""

    server: ArtifactServer
    root: Path
    trust: Trust = Trust.TRUSTED

    def __post_init__(self) -> None:
        self.log = RecordedLog()
        self.cancel = CancelToken()
        self.files = self.root / "artifacts"
        self.stored = self.root / "stored"
        for folder in (self.files / "images", self.stored, self.root / "project"):
            folder.mkdir(parents=True)
        (self.files / "images/a.wic").write_bytes(IMAGE)
        (self.files / "manifest").write_text("one\n")

    def settings(self, **external: Any) -> Mapping[str, Any]:
        given = {"url": f"file://{self.stored}", "public_url": "https://files.example/ci"}
        return {"artifacts": {"external_store": {**given, **external}}}

    def record(self) -> BuildRecord:
        begun = datetime(2026, 1, 1, tzinfo=UTC)
        return BuildRecord(
            build_id=BUILD,
            customer="lab",
            project="distro",
            targets=("image",),
            state=BuildState.COMPLETED,
            created=begun,
            trust=self.trust,
            artifacts=(ArtifactRecord("images/a.wic", len(IMAGE), SHA256),),
        )

    def job(self, *entries: Artifact) -> Job:
        return Job(
            id=7,
            token="t",
            info=JobInfo(project_path="group/distro"),
            artifacts=entries,
            variables=(Variable("CI_JOB_URL", "https://g.example/p/-/jobs/1"),),
        )

    def upload(
        self, settings: Mapping[str, Any], *entries: Artifact, build_id: str = BUILD
    ) -> list[PlacedFile]:
        agent = AgentConfig.model_validate(settings)
        transport = Transport(self.server.base)
        try:
            uploads = JobUploads(
                client=RunnerClient(transport),
                scratch=self.root / "scratch",
                record_of=lambda _: self.record(),
                agent=lambda: agent,
                trust_of=lambda _: self.trust,
                pause=lambda _: False,
            )
            outcome = Outcome(succeeded=True, build_id=build_id)
            job, project = self.job(*entries), self.root / "project"
            artifacts = self.files if build_id else None
            return list(uploads.run(job, project, artifacts, outcome, self.cancel, self.log))
        finally:
            transport.close()

    def links(self) -> Mapping[str, str]:
        """Labels and URLs of the images on the job's page."""
        (report,) = [
            one for one in self.server.uploads if one.params["artifact_type"] == "annotations"
        ]
        found = json.loads(gzip.decompress(report.content)).get("Images", [])
        return {one["external_link"]["label"]: one["external_link"]["url"] for one in found}

    def in_store(self) -> set[str]:
        return {
            path.relative_to(self.stored).as_posix()
            for path in self.stored.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with serve_artifacts() as server:
        yield Lab(server, tmp_path)


def test_files_too_big_for_the_server_are_stored_and_linked(lab: Lab) -> None:
    lab.server.faults.append(LARGE)
    placed = lab.upload(lab.settings(), LINKS, ARCHIVE)
    assert lab.in_store() == {f"lab/{BUILD}/smidr-artifacts/images/a.wic"}
    url = f"https://files.example/ci/lab/{BUILD}/smidr-artifacts/images/a.wic"
    assert lab.links() == {"images/a.wic (3.1 MB)": url}
    (image,) = placed
    assert (image.url, image.sha256) == (url, SHA256)
    assert url in lab.log.text
    assert image.sha256 in lab.log.text
    assert "2 files with 3.0 MiB" in lab.log.text
    assert "the server says: 413 Request Entity Too Large" in lab.log.text
    assert "later jobs can't get" in lab.log.text


def test_small_files_beside_a_big_one_stay_with_gitlab(lab: Lab) -> None:
    lab.server.faults.append(LARGE)
    lab.upload(lab.settings(), ARCHIVE)
    (archive,) = [one for one in lab.server.uploads if one.params["artifact_type"] == "archive"]
    names = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert names == ["smidr-artifacts/", "smidr-artifacts/images/", "smidr-artifacts/manifest"]


def test_when_the_small_files_are_too_much_as_well_they_follow(lab: Lab) -> None:
    lab.server.faults += [LARGE, LARGE]
    placed = lab.upload(lab.settings(), ARCHIVE)
    assert [Path(item.path).name for item in placed] == ["a.wic", "manifest"]
    assert len(lab.in_store()) == 2
    assert len(lab.links()) == 2


def test_a_job_without_annotations_gets_them_for_the_links(lab: Lab) -> None:
    lab.server.faults.append(LARGE)
    lab.upload(lab.settings(), ARCHIVE)
    assert len(lab.links()) == 1


def test_an_archive_that_the_server_takes_stays_there(lab: Lab) -> None:
    assert lab.upload(lab.settings(), ARCHIVE, LINKS) == []
    assert lab.in_store() == set()
    assert set(lab.links().values()) == {
        "https://g.example/p/-/jobs/1/artifacts/file/smidr-artifacts/images/a.wic"
    }


def test_beyond_the_hosts_own_limit_the_server_is_not_asked(lab: Lab) -> None:
    settings = {**lab.settings(), "gitlab": {"largest_artifact": "1M"}}
    placed = lab.upload(settings, ARCHIVE)
    assert len(placed) == 1
    kinds = [upload.params["artifact_type"] for upload in lab.server.uploads]
    assert kinds == ["archive", "annotations"]
    assert len(lab.server.uploads[0].content) < 1000
    assert "gitlab.largest_artifact of the build host is 1.0 MiB" in lab.log.text


def test_reports_are_not_held_to_the_limit_of_archives(lab: Lab) -> None:
    settings = {**lab.settings(), "gitlab": {"largest_artifact": 1}}
    assert lab.upload(settings, LINKS) == []
    assert len(lab.server.uploads) == 1


def test_without_a_store_the_message_has_the_numbers_and_the_way_out(lab: Lab) -> None:
    lab.server.faults.append(LARGE)
    with pytest.raises(BuildFailedError) as caught:
        lab.upload({}, ARCHIVE)
    assert "2 files with 3.0 MiB" in caught.value.message
    assert "smidr-artifacts/images/a.wic 3.0 MiB" in caught.value.message
    assert "artifacts.external_store in agent.yaml" in caught.value.hint


def test_a_strangers_files_are_not_stored_unless_the_operator_says_so(lab: Lab) -> None:
    lab.trust = Trust.UNTRUSTED
    lab.server.faults.append(LARGE)
    with pytest.raises(BuildFailedError, match="takes no files of such builds"):
        lab.upload(lab.settings(), ARCHIVE)
    assert lab.in_store() == set()
    lab.server.faults.append(LARGE)
    lab.upload(lab.settings(untrusted=True), ARCHIVE)
    assert lab.in_store() == {f"untrusted/lab/{BUILD}/smidr-artifacts/images/a.wic"}


@pytest.mark.parametrize("read_bytes", [None, 100_000])
def test_many_big_files_are_one_archive(lab: Lab, read_bytes: int | None) -> None:
    for number in range(51):
        place = lab.files / f"images/{number}.txt"
        place.write_bytes(str(number).encode())
        os.truncate(place, 1 << 20)
    lab.server.faults.append(replace(LARGE, read_bytes=read_bytes))
    (placed,) = lab.upload(lab.settings(), ARCHIVE)
    assert placed.path == "images.zip"
    raw = (lab.stored / f"lab/{BUILD}/images.zip").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == placed.sha256
    archive = zipfile.ZipFile(io.BytesIO(raw))
    assert archive.testzip() is None
    assert archive.read("smidr-artifacts/images/50.txt").rstrip(b"\0") == b"50"
    assert archive.read("smidr-artifacts/images/a.wic") == IMAGE


def test_a_store_in_trouble_fails_the_job_with_both_reasons(lab: Lab) -> None:
    lab.stored.rmdir()
    lab.server.faults.append(LARGE)
    with pytest.raises(BuildFailedError, match="too large for the server"):
        lab.upload(lab.settings(), ARCHIVE, LINKS)
    assert "it is not in the build host's store either" in lab.log.text
    assert "no such directory" in lab.log.text


def test_a_file_that_is_not_what_the_build_left_is_not_stored(lab: Lab) -> None:
    (lab.files / "images/a.wic").write_bytes(IMAGE[::-1])
    lab.server.faults.append(LARGE)
    with pytest.raises(BuildFailedError):
        lab.upload(lab.settings(), ARCHIVE)
    assert "changed before it was stored" in lab.log.text
    assert f"lab/{BUILD}/smidr-artifacts/images/a.wic" not in lab.in_store()


def test_a_second_try_after_a_kill_finds_the_files_there(lab: Lab) -> None:
    lab.server.faults.append(LARGE)
    first = lab.upload(lab.settings(), ARCHIVE)
    inode = (lab.stored / f"lab/{BUILD}/smidr-artifacts/images/a.wic").stat().st_ino
    lab.server.faults.append(LARGE)
    assert lab.upload(lab.settings(), ARCHIVE) == first
    assert (lab.stored / f"lab/{BUILD}/smidr-artifacts/images/a.wic").stat().st_ino == inode


def test_a_cancel_ends_it(lab: Lab) -> None:
    class Cancelling(RecordedLog):
        def __call__(self, text: str) -> None:
            if text.startswith("Storing"):
                lab.cancel.cancel("enough")
            super().__call__(text)

    lab.log = Cancelling()
    lab.server.faults.append(LARGE)
    with pytest.raises(CancelledError):
        lab.upload(lab.settings(), ARCHIVE)
    assert lab.in_store() == set()


def test_a_job_without_a_build_has_a_place_of_its_own(lab: Lab) -> None:
    (lab.root / "project/my file").write_text("x")
    lab.server.faults.append(LARGE)
    (placed,) = lab.upload(lab.settings(), replace(ARCHIVE, paths=("my file",)), build_id="")
    assert placed.url.startswith("https://files.example/ci/gitlab/group/distro/job-7/my_file-")


def test_links_in_the_files_place_lead_nowhere(lab: Lab) -> None:
    secret = lab.root / "secret"
    secret.write_text("mine")
    (lab.files / "link").symlink_to(secret)
    lab.server.faults.append(LARGE)
    lab.upload(lab.settings(), ARCHIVE)
    assert not any("link" in name for name in lab.in_store())
    assert all((lab.stored / name).read_bytes() != b"mine" for name in lab.in_store())


def test_the_merge_requests_note_has_the_links(lab: Lab) -> None:
    good = PlacedFile("smidr-artifacts/a_b.wic", 5_000_000, "0", "https://f.example/a?X=1&Y=2", "")
    bad = PlacedFile("c](http://evil)", 1, "0", "https://f.example/ a)b", "")
    page = page_of(lab.job(), placed=[good, bad])
    note = note_of(lab.record(), None, page, project_id=1, merge_request=2, key="image", order=3)
    assert "Too big for GitLab, and stored elsewhere:" in note.body
    assert "](https://f.example/a?X=1&Y=2)" in note.body
    assert "https://f.example/ a" not in note.body
    assert (
        "Too big"
        not in note_of(
            lab.record(), None, page_of(lab.job()), project_id=1, merge_request=2, key="i", order=3
        ).body
    )
