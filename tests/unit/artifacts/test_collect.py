from __future__ import annotations

import hashlib
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smidr_ci.artifacts.collect import collect
from smidr_ci.artifacts.model import Manifest
from smidr_ci.errors import CancelledError, FailureKind, HostError, InternalError
from smidr_ci.files import MARKER_NAME
from tests.fakes.disk import small_disk

NOW = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    images = tmp_path / "tmp" / "deploy" / "images" / "qemu"
    images.mkdir(parents=True)
    (images / "core-1.wic").write_bytes(b"image" * 1000)
    (images / "flash.sh").write_text("#!/bin/sh\n")
    (images / "flash.sh").chmod(0o6711)
    (images / "core.wic").symlink_to("core-1.wic")
    (tmp_path / "tmp" / "deploy" / "licenses").mkdir()
    (tmp_path / "tmp" / "deploy" / "licenses" / "zlib").touch()
    return tmp_path / "tmp" / "deploy"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / "acme" / "acme-00000001"


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_the_default_is_what_an_image_build_leaves(deploy: Path, shelf: Path) -> None:
    manifest = collect(deploy, None, shelf, created=NOW)
    assert [item.path for item in manifest.artifacts] == [
        "images/qemu/core-1.wic",
        "images/qemu/core.wic",
        "images/qemu/flash.sh",
    ]
    assert (manifest.unmatched, manifest.refused, manifest.skipped) == ((), (), ())
    assert manifest.total_bytes == 5010
    assert contents(shelf) == {
        *(item.path for item in manifest.artifacts),
        "manifest.json",
        MARKER_NAME,
    }
    assert os.listdir(shelf.parent) == [shelf.name]


def test_the_manifest_has_sizes_checksums_and_modes_and_reads_back(
    deploy: Path, shelf: Path
) -> None:
    manifest = collect(deploy, ["images/**"], shelf, created=NOW)
    image, link, script = manifest.artifacts
    assert image.sha256 == hashlib.sha256(b"image" * 1000).hexdigest()
    assert (image.size_bytes, image.is_executable, image.link) == (5000, False, None)
    assert (link.sha256, link.size_bytes, link.link) == (image.sha256, 5000, "core-1.wic")
    assert script.is_executable
    assert (shelf / script.path).stat().st_mode & 0o7777 == 0o755
    assert (shelf / image.path).stat().st_mode & 0o7777 == 0o644
    assert (shelf / link.path).readlink() == Path("core-1.wic")
    assert Manifest.read(shelf) == manifest
    assert json.loads((shelf / "manifest.json").read_text())["version"] == 1


def test_a_link_without_its_file_becomes_a_copy(deploy: Path, shelf: Path) -> None:
    (only,) = collect(deploy, ["images/qemu/core.wic"], shelf, created=NOW).artifacts
    assert (only.path, only.link) == ("images/qemu/core.wic", None)
    assert not (shelf / only.path).is_symlink()
    assert (shelf / only.path).read_bytes() == b"image" * 1000


def test_absolute_links_of_the_container_are_inside(deploy: Path, shelf: Path) -> None:
    (deploy / "images/qemu/abs").symlink_to("/smidr/build/tmp/deploy/images/qemu/core-1.wic")
    manifest = collect(
        deploy, None, shelf, created=NOW, seen_as=PurePosixPath("/smidr/build/tmp/deploy")
    )
    assert manifest.artifacts[0].path == "images/qemu/abs"
    assert manifest.artifacts[0].link == "core-1.wic"
    assert manifest.refused == ()


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../../../secret",
        "../../../../../../../../../../etc/passwd",
        "/smidr/build/tmp/deployed",
        "up/secret",
        "/etc",
        "\x1b[31m/etc/passwd\n",
    ],
)
def test_a_link_that_leads_out_is_refused_and_listed(
    deploy: Path, shelf: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "tmp" / "secret").write_text("password")
    (deploy / "images/qemu/up").symlink_to("../../..")
    (deploy / "images/qemu/evil").symlink_to(target)
    manifest = collect(
        deploy,
        ["images/qemu/e*"],
        shelf,
        created=NOW,
        seen_as=PurePosixPath("/smidr/build/tmp/deploy"),
    )
    told = [*manifest.refused, *manifest.skipped]
    assert [item.path for item in told] == ["images/qemu/evil"]
    assert told[0].reason.isprintable()
    assert manifest.artifacts == ()
    assert contents(shelf) == {"manifest.json", MARKER_NAME}


def test_loops_dangling_links_pipes_sockets_and_odd_names_are_skipped_with_a_reason(
    deploy: Path, shelf: Path
) -> None:
    images = deploy / "images" / "qemu"
    (images / "loop").symlink_to("loop")
    (images / "dangling").symlink_to("nothing")
    os.mkfifo(images / "pipe")
    os.mknod(images / "socket", stat.S_IFSOCK | 0o600)
    (images / "new\nline").touch()
    (images / "esc\x1b[2J").touch()
    (images / "bidi\u202etxt.exe").touch()
    (images / os.fsdecode(b"raw\xff")).touch()
    (images / "to-dir").symlink_to("..")
    (images / "fine ü.bin").touch()
    manifest = collect(deploy, ["images/qemu/*", "manifest.json"], shelf, created=NOW)
    kept = {item.path.rpartition("/")[2] for item in manifest.artifacts}
    assert kept == {"core-1.wic", "core.wic", "flash.sh", "fine ü.bin"}
    assert len(manifest.skipped) == 9
    assert all((item.path + item.reason).isprintable() for item in manifest.skipped)
    assert manifest.unmatched == ("manifest.json",)


def test_no_build_can_forge_the_manifest_or_the_marker(deploy: Path, shelf: Path) -> None:
    (deploy / "manifest.json").write_text("{}")
    (deploy / MARKER_NAME).write_text("mine")
    manifest = collect(deploy, ["*.json", ".smidr*"], shelf, created=NOW)
    assert manifest.artifacts == ()
    assert len(manifest.skipped) == 2
    assert Manifest.read(shelf) == manifest


def test_globs_without_a_match_are_told(deploy: Path, shelf: Path, tmp_path: Path) -> None:
    manifest = collect(deploy, ["images/**", "*.swu", "sdk/*"], shelf, created=NOW)
    assert manifest.unmatched == ("*.swu", "sdk/*")
    nowhere = collect(tmp_path / "nowhere", ["a", "b"], shelf, created=NOW)
    assert nowhere.unmatched == ("a", "b")
    assert collect(tmp_path / "nowhere", None, shelf, created=NOW).artifacts == ()


def test_a_hard_link_is_made_only_when_allowed(deploy: Path, shelf: Path) -> None:
    source = deploy / "images/qemu/flash.sh"
    collect(deploy, ["**/flash.sh"], shelf, created=NOW)
    assert not (shelf / "images/qemu/flash.sh").samefile(source)
    linked = collect(deploy, ["**/flash.sh"], shelf, created=NOW, may_link=True)
    assert (shelf / "images/qemu/flash.sh").samefile(source)
    assert (shelf / "images/qemu/flash.sh").stat().st_mode & 0o7777 == 0o755
    assert linked.artifacts[0].sha256 == hashlib.sha256(b"#!/bin/sh\n").hexdigest()


@pytest.mark.parametrize("may_link", [True, False])
def test_another_file_system_gets_copies(deploy: Path, tmp_path: Path, *, may_link: bool) -> None:
    with small_disk(tmp_path / "disk") as disk:
        manifest = collect(deploy, None, disk / "acme" / "b", created=NOW, may_link=may_link)
        assert len(manifest.artifacts) == 3
        copied = (disk / "acme" / "b" / "images/qemu/core-1.wic").read_bytes()
        assert hashlib.sha256(copied).hexdigest() == manifest.artifacts[0].sha256


def test_a_sparse_file_stays_sparse_and_keeps_its_checksum(deploy: Path, shelf: Path) -> None:
    source = deploy / "images/qemu/sparse.wic"
    with open(source, "wb") as out:
        out.seek(3 << 20)
        out.write(b"middle")
        out.truncate(64 << 20)
    manifest = collect(deploy, ["**/sparse.wic"], shelf, created=NOW)
    target = shelf / "images/qemu/sparse.wic"
    with open(source, "rb") as reader:
        assert hashlib.file_digest(reader, "sha256").hexdigest() == manifest.artifacts[0].sha256
    with open(target, "rb") as reader:
        assert hashlib.file_digest(reader, "sha256").hexdigest() == manifest.artifacts[0].sha256
    assert target.stat().st_size == 64 << 20
    assert target.stat().st_blocks * 512 < 1 << 20


def test_a_full_disk_is_told_as_such_and_leaves_nothing_half_done(
    deploy: Path, tmp_path: Path
) -> None:
    (deploy / "images/qemu/big").write_bytes(os.urandom(3 << 20))
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(HostError, match="the disk is full") as caught:
            collect(deploy, None, disk / "acme" / "b", created=NOW)
        assert caught.value.kind == FailureKind.DISK
        assert os.listdir(disk / "acme") == []


def test_a_cancel_leaves_nothing_half_done_and_the_earlier_artifacts_in_place(
    deploy: Path, shelf: Path
) -> None:
    first = collect(deploy, ["**/flash.sh"], shelf, created=NOW)
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise CancelledError("enough")

    with pytest.raises(CancelledError):
        collect(deploy, None, shelf, created=NOW, check=check)
    assert os.listdir(shelf.parent) == [shelf.name]
    assert Manifest.read(shelf) == first


def test_collecting_again_replaces_the_whole(deploy: Path, shelf: Path) -> None:
    collect(deploy, None, shelf, created=NOW)
    again = collect(deploy, ["**/flash.sh"], shelf, created=NOW)
    assert contents(shelf) == {"images/qemu/flash.sh", "manifest.json", MARKER_NAME}
    assert Manifest.read(shelf) == again
    assert os.listdir(shelf.parent) == [shelf.name]


def test_a_directory_that_is_not_ours_is_never_replaced(deploy: Path, shelf: Path) -> None:
    shelf.mkdir(parents=True)
    (shelf / "thesis.tex").touch()
    with pytest.raises(InternalError, match="refusing"):
        collect(deploy, None, shelf, created=NOW)
    assert os.listdir(shelf) == ["thesis.tex"]
    assert os.listdir(shelf.parent) == [shelf.name]


raw_name = st.binary(min_size=1, max_size=20).filter(
    lambda raw: not {0, ord("/")} & set(raw) and raw not in {b".", b".."}
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(raw_name, max_size=6, unique=True),
    st.lists(st.binary(min_size=1, max_size=12), max_size=4),
)
def test_any_names_and_links_give_a_manifest_that_is_true(
    tmp_path_factory: pytest.TempPathFactory, files: list[bytes], targets: list[bytes]
) -> None:
    base = tmp_path_factory.mktemp("any")
    deploy, shelf = base / "deploy", base / "artifacts" / "acme" / "b"
    deploy.mkdir()
    for name in files:
        (deploy / os.fsdecode(name)).write_bytes(name)
    for number, target in enumerate(targets):
        if 0 not in target:
            (deploy / f"link {number}").symlink_to(os.fsdecode(target))
    manifest = collect(deploy, ["**"], shelf, created=NOW)
    assert Manifest.read(shelf) == manifest
    assert {item.path for item in manifest.artifacts} | {"manifest.json", MARKER_NAME} == contents(
        shelf
    )
    for item in manifest.artifacts:
        assert (shelf / item.path).resolve().is_relative_to(shelf)
        assert hashlib.sha256((shelf / item.path).read_bytes()).hexdigest() == item.sha256
