"""Artifacts of earlier jobs arrive, and a hostile archive writes nothing it should not."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.forges.gitlab.archive import zip_pieces
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.dependencies import Downloads
from smidr_ci.forges.gitlab.extraction import ExtractLimits
from smidr_ci.forges.gitlab.payload import Dependency, Job
from smidr_ci.forges.gitlab.selection import Tree, select
from smidr_ci.forges.gitlab.transport import Transport
from tests.fakes.artifact_server import ArtifactServer, Fault, serve_artifacts
from tests.fakes.job_log import RecordedLog

PATH = "/api/v4/jobs/5/artifacts"


class Site:
    def __init__(self, server: ArtifactServer, root: Path) -> None:
        self.server = server
        self.project = root / "project"
        self.project.mkdir()
        self.scratch = root / "scratch"
        self.log = RecordedLog()

    def run(self, *dependencies: Dependency, **settings: object) -> None:
        transport = Transport(self.server.base)
        downloads = Downloads(
            client=RunnerClient(transport),
            scratch=self.scratch,
            pause=lambda _: False,
            **settings,  # type: ignore[arg-type]  # limits of one test
        )
        try:
            job = Job(id=9, token="t", dependencies=dependencies)
            downloads(job, self.project, CancelToken(), self.log)
        finally:
            transport.close()

    def take(self, content: bytes, **settings: object) -> None:
        self.server.downloads[PATH] = content
        self.run(Dependency(5, "layers", "dep-token", "artifacts.zip"), **settings)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve_artifacts() as server:
        yield Site(server, tmp_path)


def zipped(*entries: tuple[str, bytes, int]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def test_95_only_dependencies_with_an_archive_are_fetched_with_their_own_token(site: Site) -> None:
    site.server.downloads[PATH] = zipped(("a/b.txt", b"b", FILE))
    site.run(Dependency(5, "layers", "dep-token", "artifacts.zip"), Dependency(6, "lint", "other"))
    assert (site.project / "a/b.txt").read_bytes() == b"b"
    ((method, path, headers),) = site.server.requests
    assert (method, path) == ("GET", f"{PATH}?direct_download=true")
    assert headers["JOB-TOKEN"] == "dep-token"
    assert site.log.sections == ["download_artifacts"]


def test_without_dependencies_nothing_is_shown(site: Site) -> None:
    site.run(Dependency(6, "lint", "other"))
    assert site.log.sections == []


def test_95_the_token_does_not_follow_a_redirect_to_storage(site: Site) -> None:
    with serve_artifacts() as storage:
        storage.downloads["/bucket/x"] = zipped(("a", b"a", FILE))
        site.server.redirects[PATH] = f"{storage.base}/bucket/x?signature=1"
        site.run(Dependency(5, "layers", "dep-token", "artifacts.zip"))
        ((_, path, headers),) = storage.requests
    assert path == "/bucket/x?signature=1"
    assert "dep-token" not in str(headers)
    assert (site.project / "a").exists()


def test_96_trouble_is_tried_again_without_direct_download(site: Site) -> None:
    site.server.faults += [Fault(500), Fault(is_cut=True)]
    site.take(zipped(("a", b"a", FILE)))
    paths = [path for _, path, _ in site.server.requests]
    assert paths == [f"{PATH}?direct_download=true", PATH, PATH]


def test_trouble_without_end_is_the_servers_fault(site: Site) -> None:
    site.server.faults += [Fault(502)] * 3
    with pytest.raises(SmidrError, match="after 3 tries: the server answers 502") as caught:
        site.take(b"")
    assert caught.value.kind is FailureKind.FORGE


@pytest.mark.parametrize("status", [401, 403, 404])
def test_96_a_refusal_is_not_tried_again(site: Site, status: int) -> None:
    site.server.faults += [Fault(status)]
    with pytest.raises(SmidrError, match=str(status)) as caught:
        site.take(b"")
    assert not caught.value.kind.is_infrastructure
    assert len(site.server.requests) == 1


def test_what_we_pack_comes_out_the_same(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d/empty").mkdir(parents=True)
    (source / "d/run").write_text("#!/bin/sh\n")
    (source / "d/run").chmod(0o750)
    (source / "d/link").symlink_to("run")
    os.utime(source / "d/run", (1_700_000_001, 1_700_000_001))
    chosen = select(Tree(source), paths=["d"], warn=print, note=print)
    site.take(b"".join(bytes(piece.data) for piece in zip_pieces(chosen, warn=print)))
    run = site.project / "d/run"
    assert run.stat().st_mode & 0o7777 == 0o750
    assert run.stat().st_mtime == 1_700_000_001
    assert os.readlink(site.project / "d/link") == "run"
    assert (site.project / "d/empty").is_dir()


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", ".git/config", ".GIT/hooks/x", "a/./../../evil"]
)
def test_names_that_lead_out_are_left_out(site: Site, name: str) -> None:
    site.take(zipped((name, b"x", FILE), ("good", b"x", FILE)))
    assert [path.name for path in site.project.rglob("*")] == ["good"]
    assert not (site.project.parent / "evil").exists()
    assert "left out" in site.log.text


@pytest.mark.parametrize("target", ["/etc", "..", "../../x", "a/../../x"])
def test_links_that_lead_out_are_left_out(site: Site, target: str) -> None:
    site.take(zipped(("way", target.encode(), LINK), ("good", b"x", FILE)))
    assert not os.path.lexists(site.project / "way")
    assert (site.project / "good").exists()


def test_a_link_in_the_archive_is_no_way_to_write_through(site: Site) -> None:
    outside = site.project.parent / "outside"
    outside.mkdir()
    (site.project / "planted").symlink_to(outside)
    content = zipped(
        ("inner", b"sub", LINK), ("inner/file", b"x", FILE), ("planted/file", b"x", FILE)
    )
    site.take(content)
    assert list(outside.iterdir()) == []
    assert (site.project / "planted/file").read_bytes() == b"x"
    assert (site.project / "inner/file").read_bytes() == b"x"


def test_a_planted_link_to_a_file_is_replaced_and_not_written_through(site: Site) -> None:
    precious = site.project.parent / "precious"
    precious.write_text("precious")
    (site.project / "file").symlink_to(precious)
    site.take(zipped(("file", b"new", stat.S_IFREG | 0o6755)))
    assert precious.read_text() == "precious"
    assert (site.project / "file").read_bytes() == b"new"
    assert (site.project / "file").stat().st_mode & 0o7777 == 0o755


def test_a_bomb_is_refused_before_it_is_unpacked(site: Site) -> None:
    bomb = zipped(("zeros", bytes(50_000_000), FILE))
    with pytest.raises(SmidrError, match="at most"):
        site.take(bomb, limits=ExtractLimits(size_bytes=1_000_000))
    assert list(site.project.iterdir()) == []


def test_a_bomb_that_lies_about_its_size_is_stopped(site: Site) -> None:
    content = bytearray(zipped(("zeros", bytes(5_000_000), FILE)))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(SmidrError):
        site.take(bytes(content), limits=ExtractLimits(size_bytes=1_000_000))
    sizes = [path.stat().st_size for path in site.project.iterdir()]
    assert sum(sizes) <= 1_000_000


def test_too_many_entries_are_refused(site: Site) -> None:
    many = zipped(*((f"f{number}", b"", FILE) for number in range(200)))
    with pytest.raises(SmidrError, match="200 entries"):
        site.take(many, limits=ExtractLimits(entries=100))


def test_a_download_over_the_limit_is_stopped(site: Site) -> None:
    with pytest.raises(SmidrError, match="bigger than"):
        site.take(bytes(3_000_000), max_bytes=1_000_000)


def test_a_full_disk_is_told_before(site: Site) -> None:
    with pytest.raises(SmidrError, match="free") as caught:
        site.take(zipped(("a", b"a", FILE)), limits=ExtractLimits(spare_bytes=1 << 60))
    assert caught.value.kind is FailureKind.DISK


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", b"PK\x05\x06", b"\x1f\x8bxx", b"\x28\xb5\x2f\xfdxx"]
)
def test_what_is_no_archive_is_told(site: Site, content: bytes) -> None:
    with pytest.raises(SmidrError) as caught:
        site.take(content)
    assert caught.value.kind is FailureKind.ARTIFACTS


def test_a_damaged_zip_is_told(site: Site) -> None:
    content = bytearray(zipped(("a", os.urandom(1000), FILE)))
    content[100] ^= 0xFF
    with pytest.raises(SmidrError) as caught:
        site.take(bytes(content))
    assert caught.value.kind is FailureKind.ARTIFACTS
