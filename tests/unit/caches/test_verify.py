"""Objects and downloads are checked against what names, signatures and stamps say of them."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.caches.archives import archive_fault
from smidr_ci.caches.done_stamp import read_checksums
from smidr_ci.caches.verify import State, Verdict, verify_downloads, verify_sstate
from smidr_ci.cancel import CancelToken
from tests.fakes.git_repository import GitRepository

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pack = Callable[[bytes], bytes]


def zstd_packed(content: bytes) -> bytes:
    """As the zstd program does: with a checksum of the content."""
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})


PACKERS: Mapping[str, Pack] = {".tar.zst": zstd_packed, ".tgz": gzip.compress}


def tar_of(size: int = 50_000, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        for name in ("usr/bin/busybox", "deep/" * 40 + "name", "größe"):
            entry = tarfile.TarInfo(name)
            entry.size = size
            archive.addfile(entry, io.BytesIO(os.urandom(size)))
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
        archive.addfile(link)
    return out.getvalue()


def signature(task: str = "do_package") -> dict[str, Any]:
    return {
        "task": task,
        "basehash": "ab" * 32,
        "runtaskdeps": ["a:do_x"],
        "runtaskhashes": {"a:do_x": "cd" * 32},
        "file_checksum_values": [["x.patch", "ef" * 16], ["./y", None]],
    }


def hash_of(found: dict[str, Any]) -> str:
    text = found["basehash"] + "cd" * 32 + "ef" * 16
    return hashlib.sha256(text.encode()).hexdigest()


def put_object(
    root: Path, content: bytes, found: object = None, *, suffix: str = ".tar.zst"
) -> Path:
    unihash = hash_of(signature())
    name = f"sstate:busybox:core2-64:1.36:r0:core2-64:12:{unihash}_package{suffix}"
    path = root / unihash[:2] / unihash[2:4] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if found is not None:
        packed = zstd.compress(json.dumps(found).encode())
        path.with_name(f"{name}.siginfo").write_bytes(packed)
    return path


def only(verdicts: Iterator[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_whole_object_with_its_own_signature_is_proven(
    tmp_path: Path, suffix: str, tar_format: int
) -> None:
    put_object(tmp_path, PACKERS[suffix](tar_of(tar_format=tar_format)), signature(), suffix=suffix)
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.PROVEN


def test_gnu_tars_archives_with_holes_are_whole(tmp_path: Path) -> None:
    holey = tmp_path / "holey"
    with open(holey, "wb") as file:
        for number in range(60):  # more than fit into the first header
            file.seek(number * 2**20)
            file.write(os.urandom(4096))
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-cSf", archive, "-C", tmp_path, "holey"], check=True)
    assert archive.stat().st_size < 10 * 2**20
    packed = io.BytesIO(zstd.compress(archive.read_bytes()))
    assert archive_fault(packed, ".tar.zst", CancelToken()) == ""
    packed = io.BytesIO(zstd.compress(archive.read_bytes()[:-20_000]))
    assert archive_fault(packed, ".tar.zst", CancelToken()) != ""


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(
    "harm",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-3],
        lambda packed: packed[:500] + bytes(100) + packed[600:],
        lambda _: b"",
        lambda _: b"<html>not found</html>",
    ],
    ids=["half", "tail", "zeros", "empty", "page"],
)
def test_a_damaged_object_is_set_aside_with_its_signature(
    tmp_path: Path, suffix: str, harm: Pack
) -> None:
    packed = harm(PACKERS[suffix](tar_of()))
    path = put_object(tmp_path, packed, signature(), suffix=suffix)
    told = only(verify_sstate(tmp_path, CancelToken(), dry_run=True))
    assert (told.state, told.is_set_aside, path.exists()) == (State.DAMAGED, False, True)
    assert told.reason
    done = only(verify_sstate(tmp_path, CancelToken()))
    assert (done.state, done.is_set_aside) == (State.DAMAGED, True)
    assert {item.name for item in (tmp_path / "damaged").iterdir()} == {
        path.name, f"{path.name}.siginfo"
    }  # fmt: skip
    assert not list(path.parent.iterdir())
    assert list(verify_sstate(tmp_path, CancelToken())) == []


def test_a_whole_stream_that_is_no_archive_is_damaged(tmp_path: Path) -> None:
    put_object(tmp_path, zstd.compress(b"x" * 5000))
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.DAMAGED


def test_an_archive_that_announces_more_than_it_has_is_damaged(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("big")
    entry.size = 1 << 50
    put_object(tmp_path, zstd.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"x" * 1000))
    assert "middle" in only(verify_sstate(tmp_path, CancelToken())).reason


def test_an_object_with_the_signature_of_another_task_is_damaged(tmp_path: Path) -> None:
    put_object(tmp_path, zstd.compress(tar_of()), signature("do_compile"))
    assert "do_compile" in only(verify_sstate(tmp_path, CancelToken())).reason


def test_an_object_in_another_objects_place_is_damaged(tmp_path: Path) -> None:
    path = put_object(tmp_path, zstd.compress(tar_of()))
    (tmp_path / "00" / "11").mkdir(parents=True)
    path.rename(tmp_path / "00" / "11" / path.name)
    assert "hash" in only(verify_sstate(tmp_path, CancelToken())).reason


@pytest.mark.parametrize(
    "found", [{**signature(), "basehash": "00" * 32}, {"task": "do_package"}], ids=["other", "bare"]
)
def test_a_hash_that_hash_equivalence_may_have_changed_is_no_damage(
    tmp_path: Path, found: dict[str, Any]
) -> None:
    put_object(tmp_path, zstd.compress(tar_of()), found)
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.WHOLE


def test_a_pickled_signature_of_an_old_release_is_left_alone(tmp_path: Path) -> None:
    path = put_object(tmp_path, gzip.compress(tar_of()), suffix=".tgz")
    path.with_name(f"{path.name}.siginfo").write_bytes(pickle.dumps({"task": "do_package"}))
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.WHOLE


def test_links_and_pipes_in_sstate_are_not_read(tmp_path: Path) -> None:
    path = put_object(tmp_path, b"")
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.UNKNOWN
    path.unlink()
    os.mkfifo(path)
    assert only(verify_sstate(tmp_path, CancelToken())).state is State.UNKNOWN


def test_a_link_in_place_of_the_folder_for_damaged_objects_is_not_followed(tmp_path: Path) -> None:
    sstate, outside = tmp_path / "sstate", tmp_path / "outside"
    outside.mkdir()
    put_object(sstate, b"broken")
    (sstate / "damaged").symlink_to(outside)
    verdict = only(verify_sstate(sstate, CancelToken()))
    assert (verdict.state, verdict.is_set_aside) == (State.DAMAGED, False)
    assert list(outside.iterdir()) == []


def stamp(path: Path, checksums: object) -> None:
    done = path.with_name(f"{path.name}.done")
    with open(done, "wb") as file:
        pickle.Pickler(file, 2).dump(checksums)
    later = path.stat().st_mtime + 10
    os.utime(done, (later, later))


def put_download(root: Path, content: bytes = b"source") -> Path:
    path = root / "busybox-1.36.tar.bz2"
    path.write_bytes(content)
    sums = {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")}
    stamp(path, sums)
    return path


def test_a_download_with_its_noted_checksum_is_proven(tmp_path: Path) -> None:
    put_download(tmp_path)
    assert only(verify_downloads(tmp_path, CancelToken())).state is State.PROVEN


def test_a_changed_download_is_set_aside_with_its_stamp(tmp_path: Path) -> None:
    path = put_download(tmp_path)
    info = path.stat()
    path.write_bytes(b"sourcf")
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))
    verdict = only(verify_downloads(tmp_path, CancelToken()))
    assert verdict.is_set_aside
    assert "sha256" in verdict.reason
    assert sorted(item.name for item in (tmp_path / "damaged").iterdir()) == [
        path.name, f"{path.name}.done"
    ]  # fmt: skip
    assert [item.name for item in tmp_path.iterdir()] == ["damaged"]


def test_a_download_that_is_newer_than_its_stamp_is_left_to_bitbake(tmp_path: Path) -> None:
    path = put_download(tmp_path)
    path.write_bytes(b"another")
    os.utime(path, (path.stat().st_mtime + 100,) * 2)
    assert only(verify_downloads(tmp_path, CancelToken())).state is State.UNKNOWN


def test_a_download_that_a_build_fetches_is_not_judged(tmp_path: Path) -> None:
    path = put_download(tmp_path)
    path.write_bytes(b"half")
    with open(f"{path}.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert only(verify_downloads(tmp_path, CancelToken())).state is State.IN_USE


def test_git_mirrors_are_checked_for_what_their_refs_lead_to(tmp_path: Path) -> None:
    source = GitRepository(tmp_path / "source")
    source.commit({"file": "content"})
    downloads = tmp_path / "downloads"
    mirror = downloads / "git2" / "example.com.x.git"
    mirror.parent.mkdir(parents=True)
    subprocess.run(
        ["git", "clone", "-q", "--mirror", "--no-local", source.path, mirror], check=True
    )
    assert only(verify_downloads(downloads, CancelToken())).state is State.PROVEN
    for path in (*mirror.glob("objects/pack/*.pack"), *mirror.glob("objects/??/*")):
        path.unlink()
    verdict = only(verify_downloads(downloads, CancelToken()))
    assert verdict.is_set_aside
    assert "git fsck" in verdict.reason
    assert not mirror.exists()
    assert (downloads / "damaged" / mirror.name).is_dir()


def test_a_mirrors_own_config_runs_nothing(tmp_path: Path) -> None:
    source = GitRepository(tmp_path / "source")
    source.commit({"file": "content"})
    downloads, flag = tmp_path / "downloads", tmp_path / "flag"
    mirror = downloads / "git2" / "example.com.x.git"
    mirror.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--mirror", source.path, mirror], check=True)
    with open(mirror / "config", "a") as config:
        config.write(
            f'[core]\n\tfsmonitor = "touch {flag}"\n\tsshCommand = "touch {flag}"\n'
            f'\talternateRefsCommand = "touch {flag};"\n\trepositoryformatversion = 1\n'
            f'[extensions]\n\tpartialClone = evil\n[remote "evil"]\n\turl = ssh://x/y\n'
            f"\tpromisor = true\n\tuploadpack = touch {flag}\n"
        )
    for path in mirror.glob("objects/??/*"):
        path.unlink()
    assert only(verify_downloads(downloads, CancelToken())).state is State.DAMAGED
    assert not flag.exists()


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_stamps_of_every_binary_pickle_protocol_are_read(protocol: int) -> None:
    sums = {"md5": "0" * 32, "sha256": "1" * 64}
    assert read_checksums(pickle.dumps({**sums, "other": "x"}, protocol)) == sums


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/smidr-evil-stamp",))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        pickle.dumps(_Evil()),
        pickle.dumps({"sha256": _Evil()}),
        pickle.dumps({"sha256": "x" * 64}),
        pickle.dumps({"sha256": "0" * 63}),
        pickle.dumps(["sha256"]),
        pickle.dumps({"sha256": "0" * 64})[:-5],
        pickle.dumps({"x": "y" * 20_000}),
        b"\x80\x02}q\x00q\x01u.",
        b"\x80\x02" + b"(" * 1000 + b"u.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    ],
)
def test_a_stamp_that_bitbake_would_not_write_says_nothing_and_does_nothing(raw: bytes) -> None:
    assert read_checksums(raw) == {}
    assert not Path("/tmp/smidr-evil-stamp").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_the_folder_for_damaged_objects_belongs_to_whom_the_cache_does(tmp_path: Path) -> None:
    # Builds refuse a cache with a folder in it that they can't write to.
    os.chown(tmp_path, 4711, 4712)
    put_object(tmp_path, b"broken")
    assert only(verify_sstate(tmp_path, CancelToken())).is_set_aside
    info = (tmp_path / "damaged").stat()
    assert (info.st_uid, info.st_gid) == (4711, 4712)
