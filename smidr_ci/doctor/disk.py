"""Checks of the file systems that builds and images lie on."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.caches.layout import FreeSpace, free_space
from smidr_ci.doctor.model import CheckResult, failed, fine, warned
from smidr_ci.engine import Engine
from smidr_ci.errors import EngineError

__all__ = [
    "Look",
    "MountPoint",
    "check_directory",
    "check_engine_disk",
    "judge_mount",
    "judge_space",
    "mount_of",
]

Look = Callable[[], Sequence[CheckResult]]

_GIB: Final = 1024**3
_COMFORTABLE_BYTES: Final = 100 * _GIB
_ENGINE_BYTES: Final = 2 * _GIB
_FEW_INODES: Final = 200_000
_FICLONE: Final = 0x40049409  # ioctl_ficlone(2)
_POOR: Final = (
    (
        r"nfs\d?|cifs|smb\d?|9p|afs|ceph|glusterfs|fuse\..*|virtiofs",
        "is slow for builds, and its locks can't be trusted",
    ),
    (r"overlay|aufs", "is a container's own layer: slow, and gone with it"),
    (r"tmpfs|ramfs", "takes memory, and is empty after a reboot"),
)
_NO_UNIX: Final = {"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk"}


@dataclass(frozen=True)
class MountPoint:
    """A line of /proc/self/mountinfo (proc(5))."""

    path: Path
    kind: str
    options: frozenset[str]


def mount_of(path: Path, proc: Path) -> MountPoint | None:
    """The mount that holds the path."""
    best: MountPoint | None = None
    for line in (proc / "self" / "mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split()
        if len(words) < 6 or not rest:
            continue
        where = Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), words[4]))
        # The last of equal ones lies on top.
        if path.is_relative_to(where) and (
            best is None or len(where.parts) >= len(best.path.parts)
        ):
            best = MountPoint(where, rest.split()[0], frozenset(words[5].split(",")))
    return best


def check_directory(name: str, path: Path, min_free: int, proc: Path) -> list[CheckResult]:
    """Room, inodes and the kind of file system of a directory that builds write to."""
    try:
        where = path.resolve()
        space = free_space(where)
        results = list(judge_space(f"disk of {name}", where, space, min_free))
        mount = mount_of(where, proc)
    except OSError as error:
        return [failed(f"disk of {name}", f"{path}: {error.strerror}", f"ls -ld {path}")]
    if mount is not None:
        results.append(judge_mount(f"file system of {name}", where, mount))
    return results


def judge_space(name: str, path: Path, space: FreeSpace, min_free: int) -> Iterator[CheckResult]:
    """What the room that is left means."""
    free = f"{space.free_bytes / _GIB:.1f} GiB free at {path}"
    remedy = f"Free space (du -xhd1 {path}), or set SMIDR_HOME or directories to a larger disk"
    if space.free_bytes < min_free:
        yield failed(name, f"{free}; no build starts below {min_free / _GIB:.0f} GiB", remedy)
    elif space.free_bytes < _COMFORTABLE_BYTES:
        yield warned(name, f"{free}; an image from scratch takes 50 to 100 GiB", remedy)
    else:
        yield fine(name, free)
    if space.total_inodes and space.free_inodes < _FEW_INODES:
        yield warned(
            f"inodes of {name.removeprefix('disk of ')}",
            f"{space.free_inodes} of {space.total_inodes} free; a build makes millions of files",
            f"df -i {path}; make a file system with more: mkfs.ext4 -i 8192, or xfs",
        )


def judge_mount(name: str, path: Path, mount: MountPoint) -> CheckResult:
    """What the kind of file system means for BitBake."""
    what = f"{mount.kind} at {mount.path}"
    move = "Set SMIDR_HOME to a directory on a local ext4, xfs or btrfs"
    if mount.kind in _NO_UNIX:
        return failed(name, f"{what} knows no symlinks, owners or modes", move)
    if "ro" in mount.options:
        return failed(name, f"{what} is read-only", f"sudo mount -o remount,rw {mount.path}")
    if "noexec" in mount.options:
        remedy = f"sudo mount -o remount,exec {mount.path}"
        return failed(name, f"{what} is mounted noexec; builds run what they compile", remedy)
    for pattern, trouble in _POOR:
        if re.fullmatch(pattern, mount.kind):
            return warned(name, f"{what} {trouble}", move)
    return fine(name, f"{what}, {'with' if _can_clone(path) else 'without'} reflinks")


def _can_clone(path: Path) -> bool:
    """Whether files can share their blocks, so that copies of artifacts cost nothing."""
    existing = next(found for found in (path, *path.parents) if found.is_dir())
    try:
        with (
            tempfile.TemporaryFile(dir=existing) as source,
            tempfile.TemporaryFile(dir=existing) as target,
        ):
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def check_engine_disk(engine: Engine) -> list[CheckResult]:
    """Room for images, where the engine keeps them."""
    name = "disk of the engine"
    try:
        root = Path(engine.facts.root_dir)
        space = free_space(root) if engine.facts.root_dir else None
    except EngineError:
        return []  # the engine's own check has said so
    except OSError as error:
        if error.errno == errno.EACCES:
            return []
        raise
    if space is None or not os.path.lexists(root):
        return []
    free = f"{space.free_bytes / _GIB:.1f} GiB free at {root}"
    if space.free_bytes < _ENGINE_BYTES:
        return [failed(name, f"{free}; a builder image takes about 1 GiB", "docker system df")]
    return [fine(name, free)]
