"""Artifacts through the results service: conformance cases 85 to 95."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.cancel import CancelToken
from smidr_ci.config.artifacts import ExternalStore
from smidr_ci.errors import CancelledError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.artifact_names import mime_type_of, names_for, next_name
from smidr_ci.forges.github.artifact_uploads import MANIFEST, AgentStore, ArtifactUploads
from smidr_ci.forges.github.blocks import BLOCK_BYTES, BlockUpload
from smidr_ci.forges.github.elsewhere import OperatorStore
from smidr_ci.forges.github.results import ResultsService, RuntimeToken
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Limits, Transport
from smidr_ci.trust import Trust
from tests.fakes.forward_proxy import serve_proxy
from tests.fakes.github.results import SERVICE, runtime_token
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer

CREATE = f"POST {SERVICE}CreateArtifact"
FINALIZE = f"POST {SERVICE}FinalizeArtifact"
LIST = f"POST {SERVICE}ListArtifacts"
PUT = "PUT /blob/c/.*"
MEBIBYTE = 1024 * 1024


class Job:
    """One job's uploads, with a folder of artifacts."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.folder = room.folder / "artifacts"
        self.folder.mkdir()
        self.cancel = CancelToken()
        self.said: list[str] = []
        self.transport = Transport(limits=Limits(connect_s=5, pause_s=5))

    def service(self, token: str = "") -> ResultsService:
        good = RuntimeToken.of(token or runtime_token())
        return ResultsService(
            self.room.site, f"{self.room.server.web}/", good, self.transport, pause=self.room.pause
        )

    def file(self, path: str, content: bytes) -> ArtifactRecord:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return ArtifactRecord(path, len(content), hashlib.sha256(content).hexdigest())

    def uploads(self, **changes: Any) -> ArtifactUploads:
        values: dict[str, Any] = {
            "service": self.service(),
            "transport": self.transport,
            "store": AgentStore("acme-12345678", "https://ci.acme.example/"),
            "largest_bytes": 100 * MEBIBYTE,
            "cancel": self.cancel,
            "pause": self.room.pause,
        }
        return ArtifactUploads(**{**values, **changes})

    def content(self, name: str) -> bytes:
        return self.room.server.results.path_of(name).read_bytes()

    def manifest(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, Any] = json.loads(self.content(MANIFEST))
        return {item["path"]: item for item in found["artifacts"]}


@pytest.fixture
def job(room: Room) -> Job:
    return Job(room)


def blocks_of(github: GitHubServer, skip: int = 1) -> Sequence[tuple[str, str, int]]:
    """The blocks that arrived, without those of the manifest."""
    blocks = [item for item in github.results.puts if item[0] == "block"]
    return blocks[: len(blocks) - skip]


def test_a_file_goes_up_in_blocks_without_a_zip(job: Job, github: GitHubServer) -> None:
    content = bytes(range(250)) * 80_000  # 20,000,000 bytes
    item = job.file("core-image-minimal.wic.bz2", content)
    report = job.uploads().run(job.folder, [item])
    assert report.warnings == ()
    blocks = blocks_of(github)
    assert sorted(length for _, _, length in blocks) == [20_000_000 - 16 * MEBIBYTE, *[8388608] * 2]
    artifact = github.results.artifacts["core-image-minimal.wic.bz2"]
    assert {len(block) for _, block, _ in blocks} == {len(artifact.block_ids[0])}
    assert set(artifact.block_ids) == {block for _, block, _ in blocks}
    assert job.content(artifact.name) == content
    assert artifact.digest == f"sha256:{item.sha256}"
    assert artifact.mime_type == artifact.blob_type == "application/octet-stream"
    (finalized, _) = github.asked(FINALIZE)
    assert finalized.body["size"] == "20000000"
    ((_, stored),) = report.uploaded
    assert stored.artifact_id == artifact.number


def test_blocks_are_listed_in_order(job: Job) -> None:
    content = b"".join(bytes([number]) * BLOCK_BYTES for number in range(9)) + b"end"
    job.uploads().run(job.folder, [job.file("x.bin", content)])
    assert job.content("x.bin") == content


def test_an_empty_file_is_an_artifact_too(job: Job, github: GitHubServer) -> None:
    report = job.uploads().run(job.folder, [job.file("empty", b"")])
    assert report.warnings == ()
    assert github.results.artifacts["empty"].size == 0


def test_a_block_is_repeated_alone(job: Job, github: GitHubServer) -> None:
    content = bytes(20 * MEBIBYTE)
    github.faults.append(Fault(PUT, status=503, count=2))
    report = job.uploads().run(job.folder, [job.file("x.wic", content)])
    assert report.warnings == ()
    assert len(blocks_of(github)) == 3 + 2
    assert job.content("x.wic") == content


def test_a_block_whose_connection_broke_is_repeated(job: Job, github: GitHubServer) -> None:
    github.faults.append(Fault(PUT, is_cut=True, count=2))
    report = job.uploads().run(job.folder, [job.file("x.wic", b"y" * 1000)])
    assert report.warnings == ()
    assert job.content("x.wic") == b"y" * 1000


def test_a_refused_block_is_a_warning_and_leaves_nothing_behind(
    job: Job, github: GitHubServer
) -> None:
    github.faults.append(Fault(PUT, status=403))
    items = [job.file("a.wic", b"a"), job.file("b.wic", b"b")]
    report = job.uploads().run(job.folder, items)
    assert "a.wic is not in GitHub" in report.warnings[0]
    assert "a.wic" not in github.results.artifacts


def test_a_lost_answer_to_the_end_is_no_failure(job: Job, github: GitHubServer) -> None:
    github.faults.append(Fault(FINALIZE, is_cut=True, is_after=True))
    report = job.uploads().run(job.folder, [job.file("x.wic", b"x")])
    assert report.warnings == ()
    ((_, stored),) = report.uploaded
    assert stored.artifact_id == github.results.artifacts["x.wic"].number
    assert len(github.asked(LIST)) == 1


def test_a_lost_answer_to_the_beginning_is_no_failure(job: Job, github: GitHubServer) -> None:
    github.faults.append(Fault(CREATE, is_cut=True, is_after=True))
    report = job.uploads().run(job.folder, [job.file("x.wic", b"x")])
    assert report.warnings == ()
    assert sorted(github.results.artifacts) == [MANIFEST, "x.wic"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_calls_are_repeated_with_growing_pauses(
    job: Job, github: GitHubServer, status: int
) -> None:
    github.faults.append(Fault(CREATE, status=status, count=3))
    report = job.uploads().run(job.folder, [job.file("x.wic", b"x")])
    assert report.warnings == ()
    assert 2 < job.room.pauses[0] < job.room.pauses[1] < job.room.pauses[2] < 9


def test_a_full_quota_is_not_asked_again(job: Job, github: GitHubServer) -> None:
    body = {"code": "resource_exhausted", "msg": "Failed: insufficient usage to create artifact"}
    github.faults.append(Fault(CREATE, status=403, body=body, count=9))
    items = [job.file("a.wic", b"a"), job.file("b.wic", b"b")]
    report = job.uploads().run(job.folder, items)
    assert len(github.asked(CREATE)) == 1
    assert "storage for artifacts is used up" in report.warnings[0]
    assert [place for _, place in report.placed] == [
        "https://ci.acme.example/api/v1/builds/acme-12345678/artifacts/a.wic",
        "https://ci.acme.example/api/v1/builds/acme-12345678/artifacts/b.wic",
    ]


def test_names_are_cleaned_and_the_manifest_has_the_old_ones(
    job: Job, github: GitHubServer
) -> None:
    items = [job.file("a/b:c", b"1"), job.file("x/same.txt", b"2"), job.file("y/same.txt", b"3")]
    report = job.uploads().run(job.folder, items)
    assert report.warnings == ()
    assert sorted(github.results.artifacts) == ["b_c", MANIFEST, "x_same.txt", "y_same.txt"]
    found = job.manifest()
    assert found["a/b:c"]["artifact"] == "b_c"
    assert found["a/b:c"]["sha256"] == hashlib.sha256(b"1").hexdigest()
    assert found["y/same.txt"]["artifact_id"] == github.results.artifacts["y_same.txt"].number


def test_a_name_that_another_step_took_gets_a_number(job: Job) -> None:
    job.uploads().run(job.folder, [job.file("x.wic", b"first")])
    report = job.uploads().run(job.folder, [job.file("x.wic", b"second")])
    assert report.warnings == ()
    assert job.content("x.wic") == b"first"
    assert job.content("x-2.wic") == b"second"


def test_the_same_content_is_not_uploaded_again(job: Job, github: GitHubServer) -> None:
    item = job.file("x.wic", b"first")
    job.uploads().run(job.folder, [item])
    report = job.uploads().run(job.folder, [item])
    assert [stored.name for _, stored in report.uploaded] == ["x.wic"]
    assert len([name for name in github.results.artifacts if name.startswith("x")]) == 1


def test_what_is_too_big_is_only_named(job: Job, github: GitHubServer) -> None:
    items = [job.file("big.wic", b"12345"), job.file("small.txt", b"1")]
    report = job.uploads(largest_bytes=4).run(job.folder, items)
    assert "big.wic" not in github.results.artifacts
    assert job.manifest()["big.wic"] == {
        "path": "big.wic",
        "size": 5,
        "sha256": hashlib.sha256(b"12345").hexdigest(),
        "place": "https://ci.acme.example/api/v1/builds/acme-12345678/artifacts/big.wic",
    }
    assert [item.path for item, _ in report.placed] == ["big.wic"]


def test_links_are_named_and_strangers_links_not_followed(job: Job, github: GitHubServer) -> None:
    items = [job.file("x-2026.wic", b"x"), ArtifactRecord("x.wic", 1, "0" * 64)]
    (job.folder / "x.wic").symlink_to("x-2026.wic")
    job.uploads().run(job.folder, items)
    assert sorted(github.results.artifacts) == [MANIFEST, "x-2026.wic"]
    assert job.manifest()["x.wic"] == {"path": "x.wic", "link": "x-2026.wic"}


def test_a_file_that_is_gone_is_a_warning(job: Job) -> None:
    report = job.uploads().run(job.folder, [ArtifactRecord("gone.wic", 1, "0" * 64)])
    assert "gone.wic can't be read" in report.warnings[0]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.e30.c", runtime_token("Actions.Other:A:B")])
def test_a_token_without_the_scope_is_refused_without_a_call(
    github: GitHubServer, token: str
) -> None:
    with pytest.raises(ForgeError, match="not good for artifacts"):
        RuntimeToken.of(token)
    assert github.requests == []


def test_an_expired_token_is_a_warning(job: Job, github: GitHubServer) -> None:
    github.results.expired = True
    items = [job.file("a.wic", b"a"), job.file("b.wic", b"b")]
    report = job.uploads().run(job.folder, items)
    assert "token has expired" in report.warnings[0]
    assert len(report.placed) == 2
    assert len(github.asked(CREATE)) == 1


def test_neither_token_nor_signature_is_shown(
    job: Job, github: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    github.faults.append(Fault(PUT, is_cut=True, count=99))
    report = job.uploads(say=said.append).run(job.folder, [job.file("x.wic", b"x")])
    created = job.service().create("y.wic", "text/plain")
    texts = [*report.warnings, *said, caplog.text, repr(created), repr(job.uploads())]
    texts.append(repr(RuntimeToken.of(runtime_token())))
    for text in texts:
        assert "abc%2Bdef" not in text
        assert "abc+def" not in text
        assert runtime_token().split(".")[1] not in text
    assert report.warnings


def test_an_enterprise_server_has_no_artifacts(job: Job) -> None:
    site = Site.of("https://git.acme.example/acme/bsp")
    token = RuntimeToken.of(runtime_token())
    with pytest.raises(ForgeError, match="Enterprise Server"):
        ResultsService(site, "https://git.acme.example/", token, job.transport)


@pytest.mark.parametrize("url", ["https://evil.example/", "http://169.254.169.254/latest", ""])
def test_a_job_can_not_send_the_agent_elsewhere(job: Job, url: str) -> None:
    site = Site.of("https://github.com/acme/bsp")
    with pytest.raises(ForgeError, match="results service"):
        ResultsService(site, url, RuntimeToken.of(runtime_token()), job.transport)


def test_uploads_go_through_the_proxy_of_the_agent(
    job: Job, github: GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(3).randbytes(9 * MEBIBYTE)
    with serve_proxy(github.server_address[1]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "elsewhere.example")
        report = job.uploads().run(job.folder, [job.file("a.wic", content)])
        job.transport.close()
    assert (report.warnings, len(report.uploaded)) == ((), 1)
    assert job.content("a.wic") == content
    assert any(line.startswith(f"PUT {github.web}/blob/c/") for line in proxy.asked)
    assert any(f"{SERVICE}CreateArtifact" in line for line in proxy.asked)


def test_uploads_go_past_the_proxy_where_the_agent_says_so(
    job: Job, github: GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_proxy(github.server_address[1]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "elsewhere.example,127.0.0.1")
        report = job.uploads().run(job.folder, [job.file("a.wic", b"abc")])
    assert (report.warnings, len(report.uploaded)) == ((), 1)
    assert proxy.asked == []


def test_a_cancel_ends_an_upload(job: Job, github: GitHubServer) -> None:
    item = job.file("x.wic", bytes(40 * MEBIBYTE))
    github.faults.append(Fault(PUT, status=503, count=999))
    job.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        job.uploads().run(job.folder, [item])
    upload = BlockUpload(
        job.transport, f"{github.web}/blob/c/1?x", "text/plain", job.cancel, pause=job.room.pause
    )
    with pytest.raises(CancelledError):
        upload.run(BytesIO(b"x"))


CHILD = """
import re, sys
from pathlib import Path
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.forges.github.artifact_uploads import AgentStore, ArtifactUploads
from smidr_ci.forges.github.results import ResultsService, RuntimeToken
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport
web, token, path = sys.argv[1:]
transport = Transport()
service = ResultsService(Site.of(web + "/acme/bsp"), web, RuntimeToken.of(token), transport)
file = Path(path)
uploads = ArtifactUploads(service, transport, AgentStore("b"), 1 << 40, CancelToken())
report = uploads.run(file.parent, [ArtifactRecord(file.name, file.stat().st_size, "")])
# Not getrusage: its peak is that of the process that started this one, if that was bigger.
print(report.warnings, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def upload_apart(github: GitHubServer, path: Path, size: int) -> int:
    """Peak memory in KiB of a process that uploads a file of this size."""
    with path.open("wb") as stream:
        stream.truncate(size)
    command = [sys.executable, "-c", CHILD, github.web, runtime_token(), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    match = re.fullmatch(r"\(\) (\d+)\n", done.stdout)
    assert match, done.stdout
    return int(match[1])


def test_memory_does_not_grow_with_the_file(github: GitHubServer, tmp_path: Path) -> None:
    size = 1 << 30
    peak = upload_apart(github, tmp_path / "huge.wic", size)
    assert peak < 110 * 1024
    assert github.results.artifacts["huge.wic"].size == size
    assert len([item for item in github.results.puts if item[0] == "block"]) == 128 + 1


@given(st.lists(st.text(min_size=1, max_size=300), max_size=8, unique=True))
def test_any_paths_get_names_that_github_takes(paths: list[str]) -> None:
    names = names_for(paths, taken=["artifact"])
    lowered = [name.lower() for name in names.values()]
    assert len(set(lowered)) == len(lowered) == len(paths)
    for name in names.values():
        assert name
        assert name.lower() != "artifact"
        assert not set(name) & set('":<>|*?\r\n\\/')
        assert len(name.encode()) <= 210


def test_kinds_of_files_and_further_names() -> None:
    assert mime_type_of("notes.txt") == "text/plain"
    assert mime_type_of("manifest.json") == "application/json"
    assert mime_type_of("core-image.wic.gz") == "application/octet-stream"
    assert mime_type_of("zImage") == "application/octet-stream"
    assert next_name("a.tar.gz") == "a-2.tar.gz"
    assert next_name("a-2.tar.gz") == "a-3.tar.gz"
    assert next_name("a") == "a-2"


def operators_store(job: Job, folder: Path, trust: Trust, **settings: Any) -> OperatorStore:
    values = {"url": f"file://{folder}", "public_url": "https://files.example", **settings}
    record = BuildRecord(
        build_id="acme-12345678",
        customer="acme",
        project="distro",
        targets=("image",),
        state=BuildState.COMPLETED,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        trust=trust,
    )
    return OperatorStore(
        ExternalStore.model_validate(values),
        lambda: record,
        AgentStore("acme-12345678", "https://ci.acme.example/"),
        job.cancel,
        job.said.append,
    )


@pytest.mark.parametrize("trust", [Trust.TRUSTED, Trust.UNTRUSTED])
def test_what_is_too_big_goes_to_the_operators_store(
    job: Job, tmp_path: Path, trust: Trust
) -> None:
    store = operators_store(job, tmp_path, trust, untrusted=True)
    big = job.file("images/big one.wic", b"b" * 2000)
    report = job.uploads(largest_bytes=1000, store=store).run(job.folder, [big])
    ((_, url),) = report.placed
    below = "untrusted/" if trust is Trust.UNTRUSTED else ""
    assert url.startswith(f"https://files.example/{below}acme/acme-12345678/images/big_one.wic-")
    key = url.removeprefix("https://files.example/")
    assert (tmp_path / key).read_bytes() == b"b" * 2000
    assert job.manifest()["images/big one.wic"] == {
        "path": "images/big one.wic",
        "size": 2000,
        "sha256": big.sha256,
        "place": url,
    }


def test_a_strangers_big_file_stays_on_the_host(job: Job, tmp_path: Path) -> None:
    store = operators_store(job, tmp_path, Trust.UNTRUSTED)
    big = job.file("big.wic", b"b" * 2000)
    report = job.uploads(largest_bytes=1000, store=store).run(job.folder, [big])
    ((_, place),) = report.placed
    assert place.startswith("https://ci.acme.example/")
    assert list(tmp_path.glob("**/*.wic")) == [job.folder / "big.wic"]


def test_a_store_in_trouble_is_a_warning_and_the_file_stays_named(job: Job, tmp_path: Path) -> None:
    store = operators_store(job, tmp_path / "unmounted", Trust.TRUSTED)
    big = job.file("big.wic", b"b" * 2000)
    report = job.uploads(largest_bytes=1000, store=store).run(job.folder, [big])
    (warning,) = report.warnings
    assert "nowhere but on the host" in warning
    assert "no such directory" in warning
    assert job.manifest()["big.wic"]["sha256"] == big.sha256
