"""Downloads and sstate on the host: made, checked as the builder would use them, and mounted.

Nothing that is already there changes its owner or mode, but for an empty directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.caches.probe import probe_as
from smidr_ci.containers.runtime import Mount, User
from smidr_ci.containers.user import own
from smidr_ci.errors import CacheError, FailureKind, HostError

__all__ = ["DOWNLOADS_MOUNT", "SSTATE_MOUNT", "CacheDirs", "FreeSpace", "free_space"]

DOWNLOADS_MOUNT: Final = PurePosixPath("/smidr/downloads")
SSTATE_MOUNT: Final = PurePosixPath("/smidr/sstate")
_SAMPLE: Final = 300


@dataclass(frozen=True)
class FreeSpace:
    """What a file system has left for unprivileged users."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int
    """0 where the file system makes inodes as it needs them (btrfs)."""


def free_space(path: Path) -> FreeSpace:
    """Of the file system that holds `path`, or would: missing parts are left out.

    Raises `OSError`.
    """
    found = path.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    info = os.statvfs(found)
    return FreeSpace(
        free_bytes=info.f_bavail * info.f_frsize,
        total_bytes=info.f_blocks * info.f_frsize,
        free_inodes=info.f_favail,
        total_inodes=info.f_files,
    )


@dataclass(frozen=True)
class CacheDirs:
    """The two directories that all builds of a host share."""

    downloads: Path
    sstate: Path

    def prepare(self, user: User) -> None:
        """Make them, and prove that the builder can write to them.

        Raises `CacheError`, which names the directory, what is wrong with it, and the remedy.
        """
        for path in (self.downloads, self.sstate):
            _make(path, user)
            _check_writable(path, user)
            _check_content(path, user)

    def mounts(self) -> tuple[Mount, ...]:
        """Where a trusted build sees them; the directories exist."""
        return (
            Mount(self.downloads.resolve(), DOWNLOADS_MOUNT, writable=True),
            Mount(self.sstate.resolve(), SSTATE_MOUNT, writable=True),
        )


def _make(path: Path, user: User) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not any(path.iterdir()):
            with contextlib.suppress(HostError):  # whether that matters, the probe tells
                own(path.resolve(), user)
    except OSError as error:
        raise CacheError(
            f"can't make the cache directory: {error.strerror}",
            where=str(path),
            hint="Choose another with directories.downloads and directories.sstate.",
        ) from error


def _check_writable(path: Path, user: User) -> None:
    reason = probe_as(path, user)
    if not reason:
        return
    kind, hint = None, f"sudo chown -R {user.uid}:{user.gid} {path}"
    if "Read-only file system" in reason:
        hint = f"Mount it writable (sudo mount -o remount,rw {_mount_point(path)}), or choose "
        hint += "another directory with directories.downloads and directories.sstate."
    elif "No space left" in reason or "quota" in reason.lower():
        kind = FailureKind.DISK
        hint = f"Free space there (df -h {path}; df -i {path}), or move the cache elsewhere."
    raise CacheError(
        f"builds run as uid {user.uid} and can't write to this cache directory: {reason}",
        where=str(path),
        hint=hint,
        kind=kind,
    )


def _mount_point(path: Path) -> Path:
    import psutil  # noqa: PLC0415 - only a message needs it

    # os.path.ismount overlooks a directory that is mounted from the same file system.
    mounted = {Path(item.mountpoint) for item in psutil.disk_partitions(all=True)}
    found = path.resolve()
    return next((place for place in (found, *found.parents) if place in mounted), found)


def _check_content(path: Path, user: User) -> None:
    """Sub-directories that somebody else owns make a build fail hours later; look at some."""
    try:
        with os.scandir(path) as entries:
            for entry in islice(entries, _SAMPLE):
                with contextlib.suppress(FileNotFoundError):  # another build's probe, or gc
                    if entry.is_dir(follow_symlinks=False):
                        info = entry.stat(follow_symlinks=False)
                        _check_sub_directory(Path(entry.path), info, user)
    except OSError as error:
        raise CacheError(
            f"can't read the cache directory: {error.strerror}", where=str(path)
        ) from (error)


def _check_sub_directory(path: Path, info: os.stat_result, user: User) -> None:
    mode = info.st_mode
    is_usable = (
        info.st_uid == user.uid
        or bool(mode & stat.S_IWOTH)
        or (info.st_gid == user.gid and bool(mode & stat.S_IWGRP))
        # Access control lists show in the group's bits, for whomever they are meant.
        or bool(_has_acl(path) and mode & stat.S_IWGRP)
    )
    if not is_usable:
        raise CacheError(
            f"this part of the cache belongs to uid {info.st_uid}, but builds run as uid "
            f"{user.uid} and can't write to it",
            where=str(path),
            hint=f"sudo chown -R {user.uid}:{user.gid} {path.parent}",
        )


def _has_acl(path: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False
