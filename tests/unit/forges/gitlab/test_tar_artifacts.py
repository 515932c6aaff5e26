"""Artifacts as tar.gz and tar.zst: unpacked as zips are, and the same attacks get nowhere."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError, FailureKind, SmidrError
from smidr_ci.forges.gitlab.extraction import ExtractLimits, extract
from tests.fakes.job_log import RecordedLog

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pack = Callable[[bytes], bytes]
PACKERS = [pytest.param(gzip.compress, id="gzip"), pytest.param(zstd.compress, id="zstd")]


class Site:
    def __init__(self, root: Path) -> None:
        self.project = root / "project"
        self.project.mkdir()
        self.log = RecordedLog()
        self.cancel = CancelToken()

    def take(self, content: bytes, **limits: int) -> int:
        limit = ExtractLimits(**{"spare_bytes": 0, **limits})
        file = io.BytesIO(content)
        return extract(file, self.project, warn=self.log.warning, cancel=self.cancel, limits=limit)

    @property
    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.project)) for path in self.project.rglob("*"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name: str, content: bytes = b"", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), 1_700_000_001
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", PACKERS)
def test_96_a_tar_archive_comes_with_modes_times_and_links(
    site: Site, pack: Pack, form: int
) -> None:
    long = "deep/" + "n" * 90
    content = tar(
        member("d", type=tarfile.DIRTYPE, mode=0o750),
        member("d/run", b"#!/bin/sh\n", mode=0o750),
        link("d/link", "run"),
        member(long, b"long"),
        form=form,
    )
    assert site.take(pack(content)) == 4
    run = site.project / "d/run"
    assert run.read_bytes() == b"#!/bin/sh\n"
    assert run.stat().st_mode & 0o7777 == 0o750
    assert run.stat().st_mtime == 1_700_000_001
    assert (site.project / "d").stat().st_mode & 0o777 == 0o750
    assert os.readlink(site.project / "d/link") == "run"
    assert (site.project / long).read_bytes() == b"long"


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", ".git/config", ".GIT/hooks"])
def test_names_that_lead_out_are_left_out(site: Site, name: str, pack: Pack) -> None:
    site.take(pack(tar(member(name, b"x"), member("good", b"x"))))
    assert site.names == ["good"]
    assert not (site.project.parent / "evil").exists()
    assert "left out" in site.log.text


@pytest.mark.parametrize("target", ["/etc", "..", "../../x", "a/../../x"])
def test_links_that_lead_out_are_left_out(site: Site, target: str) -> None:
    site.take(gzip.compress(tar(link("way", target), member("way/x", b"x"))))
    assert not (site.project / "way").is_symlink()
    assert (site.project / "way/x").read_bytes() == b"x"


def test_nothing_is_written_through_a_link(site: Site) -> None:
    outside = site.project.parent / "outside"
    outside.mkdir()
    (site.project / "planted").symlink_to(outside)
    content = tar(link("inner", "sub"), member("inner/x", b"x"), member("planted/x", b"x"))
    site.take(gzip.compress(content))
    assert list(outside.iterdir()) == []
    assert (site.project / "planted/x").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a FIFO"),
    ],
)
def test_what_is_no_file_is_left_out(site: Site, kind: bytes, what: str) -> None:
    site.take(gzip.compress(tar(link("odd", "/etc/passwd", kind), member("good", b"x"))))
    assert site.names == ["good"]
    assert f"odd: left out, it is {what}" in site.log.text


def test_no_file_is_setuid(site: Site) -> None:
    site.take(gzip.compress(tar(member("x", b"x", mode=0o6755))))
    assert (site.project / "x").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("pack", PACKERS)
def test_a_bomb_is_stopped(site: Site, pack: Pack) -> None:
    bomb = pack(tar(member("zeros", bytes(20_000_000))))
    with pytest.raises(SmidrError, match="more than it says and than is allowed"):
        site.take(bomb, size_bytes=3_000_000)
    assert sum(path.stat().st_size for path in site.project.iterdir()) <= 3_000_000


def test_a_bomb_of_entries_is_stopped(site: Site) -> None:
    many = gzip.compress(tar(*(member(f"f{number}") for number in range(200))))
    with pytest.raises(SmidrError, match="more than 100 entries"):
        site.take(many, entries=100)


def test_a_header_that_announces_gigabytes_is_not_read(site: Site) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 7 << 30
    with pytest.raises(SmidrError, match="far too long name"):
        site.take(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))


def test_a_zstd_window_that_would_fill_the_memory_is_refused(site: Site) -> None:
    # RFC 8878: a frame without content size, a window of 2^(10 + 20) bytes, an empty last block.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 20 << 3]) + b"\x01\x00\x00"
    with pytest.raises(SmidrError, match="too much memory") as caught:
        site.take(frame)
    assert caught.value.kind is FailureKind.ARTIFACTS


@pytest.mark.parametrize("pack", PACKERS)
def test_half_an_archive_is_told(site: Site, pack: Pack) -> None:
    whole = pack(tar(member("x", os.urandom(100_000))))
    with pytest.raises(SmidrError) as caught:
        site.take(whole[: len(whole) // 2])
    assert caught.value.kind is FailureKind.ARTIFACTS


@pytest.mark.parametrize("pack", PACKERS)
def test_a_file_over_the_free_space_is_told_before(site: Site, pack: Pack) -> None:
    with pytest.raises(SmidrError, match="free") as caught:
        site.take(pack(tar(member("x", b"x"))), spare_bytes=1 << 60)
    assert caught.value.kind is FailureKind.DISK


def test_it_ends_with_the_job(site: Site) -> None:
    site.cancel.cancel("enough")
    with pytest.raises(CancelledError):
        site.take(gzip.compress(tar(member("x", b"x"))))
