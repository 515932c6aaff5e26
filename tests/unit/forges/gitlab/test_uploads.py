"""Artifacts reach a server that is honest, slow, full or in trouble."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError, FailureKind, SmidrError
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.payload import Artifact, Job
from smidr_ci.forges.gitlab.transport import Transport
from smidr_ci.forges.gitlab.uploads import Uploader
from tests.fakes.artifact_server import ArtifactServer, Fault, serve_artifacts
from tests.fakes.job_log import RecordedLog

TOKEN = "glcbt-secret"


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with serve_artifacts() as running:
        yield running


class Site:
    """A job with a project directory."""

    def __init__(self, server: ArtifactServer, root: Path) -> None:
        self.server = server
        self.directory = root / "project"
        self.directory.mkdir()
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.log = RecordedLog()
        self.cancel = CancelToken()
        self.waits: list[float] = []
        self.transport = Transport(server.base)

    def write(self, name: str, content: bytes = b"content\n") -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def upload(
        self, *entries: Artifact, succeeded: bool = True, patience_s: float = 60.0, **variables: str
    ) -> None:
        def expand(text: str) -> str:
            for key, value in variables.items():
                text = text.replace(f"${key}", value)
            return text

        job = Job(id=7, token=TOKEN, artifacts=entries)
        try:
            Uploader(
                client=RunnerClient(self.transport),
                job=job,
                directory=self.directory,
                scratch=self.scratch,
                say=self.log,
                cancel=self.cancel,
                expand=expand,
                untracked=lambda: ["new.txt"],
                patience_s=patience_s,
                pause=self._pause,
            ).upload(succeeded=succeeded)
        finally:
            self.transport.close()

    def _pause(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False


@pytest.fixture
def site(server: ArtifactServer, tmp_path: Path) -> Site:
    return Site(server, tmp_path)


def test_86_a_zip_goes_up_as_one_part_with_its_options_in_the_query(site: Site) -> None:
    site.write("out/a.txt")
    site.upload(
        Artifact(name="images-$MACHINE", paths=("out/$MACHINE.txt",), expire_in="2 weeks"),
        MACHINE="a",
    )
    (upload,) = site.server.uploads
    assert upload.path == "/api/v4/jobs/7/artifacts"
    assert upload.params == {
        "artifact_format": "zip", "artifact_type": "archive", "expire_in": "2 weeks",
    }  # fmt: skip
    assert upload.headers["JOB-TOKEN"] == TOKEN
    assert upload.file_name == "images-a.zip"
    assert upload.is_chunked
    archive = zipfile.ZipFile(io.BytesIO(upload.content))
    assert archive.namelist() == ["out/a.txt"]


def test_names_follow_the_rules_of_the_official_runner(site: Site) -> None:
    site.write("a")
    site.upload(
        Artifact(name="", paths=("a",)),
        Artifact(name="$EMPTY", paths=("a",)),
        Artifact(name='group/na"me\r\nX: 1', paths=("a",)),
        EMPTY="",
    )
    names = [upload.file_name for upload in site.server.uploads]
    assert names == ["artifacts.zip", "default.zip", "na%22me%0D%0AX: 1.zip"]


def test_90_reports_go_up_as_gzip_and_raw(site: Site) -> None:
    site.write("r/a.xml", b"<a/>")
    site.write("r/b.xml", b"<b/>")
    site.write("cq.json", b"[]")
    site.upload(
        Artifact(name="junit.xml", paths=("r/*.xml",), type="junit", format="gzip"),
        Artifact(name="cq.json", paths=("cq.json",), type="codequality", format="raw"),
    )
    junit, quality = site.server.uploads
    assert (junit.file_name, gzip.decompress(junit.content)) == ("junit.xml.gz", b"<a/><b/>")
    assert (quality.file_name, quality.content) == ("cq.json", b"[]")
    assert quality.params == {"artifact_format": "raw", "artifact_type": "codequality"}


def test_70_when_decides_by_the_jobs_result(site: Site) -> None:
    site.write("a")
    entries = [
        Artifact(name=when or "none", paths=("a",), when=when)
        for when in ("on_success", "on_failure", "always", "")
    ]
    site.upload(*entries, succeeded=True)
    site.upload(*entries, succeeded=False)
    names = [upload.file_name for upload in site.server.uploads]
    assert names == [
        "on_success.zip", "always.zip", "none.zip", "on_failure.zip", "always.zip",
    ]  # fmt: skip


def test_89_nothing_to_upload_is_no_failure_and_no_request(site: Site) -> None:
    site.upload(Artifact(paths=("missing",)))
    assert "WARNING: No files to upload" in site.log.lines
    assert site.server.requests == []


def test_untracked_files_go_up(site: Site) -> None:
    site.write("new.txt")
    site.upload(Artifact(untracked=True))
    archive = zipfile.ZipFile(io.BytesIO(site.server.uploads[0].content))
    assert archive.namelist() == ["new.txt"]


def test_91_raw_with_two_files_fails(site: Site) -> None:
    site.write("a")
    site.write("b")
    with pytest.raises(SmidrError, match="2 files were chosen"):
        site.upload(Artifact(paths=("a", "b"), type="codequality", format="raw"))
    assert site.server.requests == []


def test_87_a_server_in_trouble_is_tried_again_with_the_same_bytes(site: Site) -> None:
    site.write("text", b"x" * 3_000_000)
    site.write("image.xz", os.urandom(2_000_000))
    site.server.faults += [
        Fault(500),
        Fault(is_cut=True, read_bytes=700_000),
        Fault(429, {"Retry-After": "7"}),
        Fault(503, {"Retry-After": "9"}, read_bytes=1_500_000),
    ]
    site.upload(Artifact(paths=("*",)))
    (upload,) = site.server.uploads
    archive = zipfile.ZipFile(io.BytesIO(upload.content))
    assert archive.testzip() is None
    assert archive.namelist() == ["image.xz", "text"]
    assert site.waits == [1.0, 2.0, 7.0, 9.0], "the server's wishes count"


def test_patience_ends_and_the_host_is_to_blame(site: Site) -> None:
    site.write("a")
    site.server.faults += [Fault(502)] * 9
    with pytest.raises(SmidrError, match="failed after 3 tries: 502") as caught:
        site.upload(Artifact(paths=("a",)), patience_s=0)
    assert caught.value.kind.is_infrastructure
    assert len(site.server.requests) == 3


def test_97_too_large_says_the_numbers_and_is_not_tried_again(site: Site) -> None:
    site.write("big.wic.xz", os.urandom(5 << 20))
    site.write("small.txt")
    site.server.faults.append(Fault(413, message="Payload too large", read_bytes=1 << 20))
    with pytest.raises(SmidrError) as caught:
        site.upload(Artifact(paths=("*",)))
    text = str(caught.value)
    assert "too large" in text
    assert "2 files with 5.0" in text
    assert "big.wic.xz 5.0" in text
    assert "Maximum artifacts size" in text
    assert caught.value.kind is FailureKind.ARTIFACTS
    assert len(site.server.requests) == 1


def test_97_one_refused_entry_does_not_keep_the_others_back(site: Site) -> None:
    site.write("a")
    site.server.faults.append(Fault(413))
    with pytest.raises(SmidrError, match="too large"):
        site.upload(Artifact(name="one", paths=("a",)), Artifact(name="two", paths=("a",)))
    assert [upload.file_name for upload in site.server.uploads] == ["two.zip"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_refusal_is_not_tried_again(site: Site, status: int) -> None:
    site.write("a")
    site.server.faults.append(Fault(status, message="because"))
    with pytest.raises(SmidrError, match="because") as caught:
        site.upload(Artifact(paths=("a",)))
    assert not caught.value.kind.is_infrastructure
    assert TOKEN not in str(caught.value)
    assert len(site.server.requests) == 1


def test_88_a_redirect_leads_to_the_other_host(site: Site) -> None:
    site.write("a")
    with serve_artifacts() as other:
        site.server.faults.append(Fault(307, {"Location": f"{other.base}/elsewhere"}))
        site.upload(Artifact(paths=("a",)))
        assert other.uploads[0].path == "/api/v4/jobs/7/artifacts"
    assert site.server.uploads == []


def test_a_server_that_wants_a_length_gets_one(site: Site) -> None:
    site.write("a", b"x" * 500_000)
    site.server.faults.append(Fault(411))
    site.upload(Artifact(paths=("a",)))
    (upload,) = site.server.uploads
    assert not upload.is_chunked
    assert int(upload.headers["Content-Length"]) == upload.size
    assert zipfile.ZipFile(io.BytesIO(upload.content)).testzip() is None


def test_a_cancel_ends_the_trying(site: Site) -> None:
    site.write("a")
    site.server.faults += [Fault(500)] * 3
    site.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        site.upload(Artifact(paths=("a",)))
    assert site.server.uploads == []


def test_hostile_expansions_reach_nothing_outside(site: Site) -> None:
    site.write("a")
    (site.directory.parent / "secret").write_text("x")
    site.upload(Artifact(name="n", paths=("$P", "a")), P="../secret")
    archive = zipfile.ZipFile(io.BytesIO(site.server.uploads[0].content))
    assert archive.namelist() == ["a"]


_MEASURE = """
import json, sys
from pathlib import Path
from smidr_ci.cancel import CancelToken
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.payload import Artifact, Job
from smidr_ci.forges.gitlab.transport import Transport
from smidr_ci.forges.gitlab.uploads import Uploader
from tests.fakes.job_log import RecordedLog
def peak_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
root, url = Path(sys.argv[1]), sys.argv[2]
job = Job(id=7, token="t", artifacts=(Artifact(paths=("image.wic.zst",)),))
Uploader(client=RunnerClient(Transport(url)), job=job, directory=root, scratch=root,
         say=RecordedLog(), cancel=CancelToken()).upload(succeeded=True)
print(json.dumps({"rss_kib": peak_kib()}))
"""


def test_a_gigabyte_goes_up_in_little_memory(server: ArtifactServer, tmp_path: Path) -> None:
    server.keeps_content = False
    with (tmp_path / "image.wic.zst").open("wb") as file:
        file.truncate(1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path), server.base],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    (upload,) = server.uploads
    assert upload.size > 1 << 30
    assert json.loads(done.stdout)["rss_kib"] < 80 * 1024
