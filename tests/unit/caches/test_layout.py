"""Cache directories: made, checked as the builder, mounted."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.caches.layout import CacheDirs, free_space
from smidr_ci.containers.runtime import Mount, User
from smidr_ci.errors import CacheError, FailureKind

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may change owners and mount")


@pytest.fixture
def user() -> User:
    return User(4711, 4712) if IS_ROOT else User(os.geteuid(), os.getegid())


@pytest.fixture
def dirs(tmp_path: Path) -> CacheDirs:
    return CacheDirs(tmp_path / "a" / "downloads", tmp_path / "sstate")


def test_new_directories_belong_to_the_builder_and_are_tagged(dirs: CacheDirs, user: User) -> None:
    dirs.prepare(user)
    for path in (dirs.downloads, dirs.sstate):
        assert (path.stat().st_uid, path.stat().st_gid) == (user.uid, user.gid)
        tag = path / "CACHEDIR.TAG"
        assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
        assert tag.stat().st_uid == user.uid
        assert [entry.name for entry in path.iterdir()] == ["CACHEDIR.TAG"]


def test_preparing_again_changes_nothing(dirs: CacheDirs, user: User) -> None:
    dirs.prepare(user)
    (dirs.sstate / "ab").mkdir()
    os.chown(dirs.sstate / "ab", user.uid, user.gid)
    before = (dirs.sstate / "CACHEDIR.TAG").stat()
    dirs.prepare(user)
    after = (dirs.sstate / "CACHEDIR.TAG").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_mounts_are_writable_and_follow_the_operators_symlink(
    dirs: CacheDirs, user: User, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    dirs.sstate.symlink_to(tmp_path / "disk")
    dirs.prepare(user)
    assert dirs.mounts() == (
        Mount(dirs.downloads, PurePosixPath("/smidr/downloads"), writable=True),
        Mount(tmp_path / "disk", PurePosixPath("/smidr/sstate"), writable=True),
    )


def test_directory_without_write_permission_is_refused_with_the_remedy(
    dirs: CacheDirs, user: User
) -> None:
    dirs.sstate.mkdir()
    (dirs.sstate / "kept").touch()
    dirs.sstate.chmod(0o555)
    with pytest.raises(CacheError, match="Permission denied") as caught:
        dirs.prepare(user)
    assert caught.value.where == str(dirs.sstate)
    assert caught.value.hint == f"sudo chown -R {user.uid}:{user.gid} {dirs.sstate}"


@needs_root
def test_parents_closed_to_the_builder_do_not_matter(tmp_path: Path, user: User) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    CacheDirs(closed / "downloads", closed / "sstate").prepare(user)


@needs_root
def test_part_of_the_cache_that_another_user_owns_is_named(dirs: CacheDirs, user: User) -> None:
    dirs.prepare(user)
    (dirs.sstate / "ab").mkdir()
    with pytest.raises(CacheError, match="belongs to uid 0") as caught:
        dirs.prepare(user)
    assert caught.value.where == str(dirs.sstate / "ab")
    (dirs.sstate / "ab").chmod(0o777)
    dirs.prepare(user)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "none", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@needs_root
def test_what_others_probe_and_remove_meanwhile_does_not_matter(
    dirs: CacheDirs, user: User
) -> None:
    dirs.prepare(user)
    apart, passing = dirs.sstate.parent / "apart", dirs.sstate / "passing"
    apart.mkdir()
    os.chown(apart, user.uid, user.gid)
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            apart.rename(passing)
            passing.rename(apart)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(30):
            dirs.prepare(user)
    finally:
        is_over.set()
        other.join()


@needs_root
def test_full_disk_is_named_as_such(small_disk: Path, user: User) -> None:
    dirs = CacheDirs(small_disk / "downloads", small_disk / "sstate")
    dirs.prepare(user)
    with (small_disk / "filler").open("wb") as filler, suppress(OSError):
        filler.write(bytes(2 * 1024**2))
    assert free_space(small_disk).free_bytes == 0
    with pytest.raises(CacheError, match="No space left on device") as caught:
        dirs.prepare(user)
    assert caught.value.kind is FailureKind.DISK
    assert f"df -h {dirs.downloads}" in caught.value.hint


@needs_root
def test_read_only_disk_is_named_as_such(small_disk: Path, user: User) -> None:
    dirs = CacheDirs(small_disk / "downloads", small_disk / "sstate")
    dirs.prepare(user)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CacheError, match="Read-only file system") as caught:
        dirs.prepare(user)
    assert f"mount -o remount,rw {small_disk}" in caught.value.hint


def test_file_in_place_of_the_directory_is_refused(dirs: CacheDirs, user: User) -> None:
    dirs.sstate.write_text("")
    with pytest.raises(CacheError, match="can't make") as caught:
        dirs.prepare(user)
    assert caught.value.where == str(dirs.sstate)


def test_free_space_of_a_path_to_come_is_that_of_its_parent(tmp_path: Path) -> None:
    space = free_space(tmp_path / "not" / "there")
    assert space.total_bytes == free_space(tmp_path).total_bytes
    assert 0 < space.free_bytes <= space.total_bytes
