"""A stranger's entries into a stranger's directory: nothing is written outside, and not too much.

Each part of a path is opened below the one before without following a link, so neither names like
`../x` nor links in the directory or in the archive lead anywhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.artifacts.model import shown
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BuildFailedError, FailureKind, HostError

__all__ = ["MAX_LINK", "ExtractLimits", "Unpacking", "check_space", "refused", "unpacking"]

MAX_LINK: Final = 4096
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class ExtractLimits:
    """What one archive may cost at most."""

    entries: int = 500_000
    size_bytes: int = 200 << 30
    directory_bytes: int = 256 << 20
    """Of a zip's own list of entries, which is held in memory."""
    spare_bytes: int = 1 << 30
    """What must stay free on the disk."""


@dataclass
class Unpacking:
    """One archive on its way into a project; a name that leads out is left out with a warning.

    Raises `BuildFailedError` for too much, `HostError` for a full disk, `OSError`.
    """

    project: Path
    root: int
    warn: Callable[[str], None]
    cancel: CancelToken
    limits: ExtractLimits
    count: int = 0
    """Entries so far, also those that were left out."""
    _size: int = 0
    _looked: int = 0
    _folders: list[tuple[list[str], int, float]] = field(default_factory=list)

    def folder(self, name: str, mode: int, mtime: float) -> None:
        """A directory; its mode and time come at the end, since files in it change them."""
        parts = self._parts(name)
        if parts is not None:
            with _below(self.root, parts):
                self._folders.append((parts, mode & 0o777 or 0o755, mtime))

    def link(self, name: str, target: str) -> None:
        """A symbolic link, if it stays inside."""
        parts = self._parts(name)
        if parts is None:
            return
        place = posixpath.normpath(posixpath.join(*parts[:-1], target))
        is_inside = not target.startswith("/") and not f"{place}/".startswith("../")
        if not target or "\0" in target or len(target) > MAX_LINK or not is_inside:
            self._leave_out(name, "the link leads out of the project")
            return
        with _below(self.root, parts[:-1]) as folder:
            if self._make_room(folder, parts[-1], name):
                os.symlink(target, parts[-1], dir_fd=folder)

    def file(self, name: str, chunks: Iterable[bytes], mode: int, mtime: float) -> None:
        """A file, in the place of whatever had its name; never setuid or setgid."""
        parts = self._parts(name)
        if parts is None:
            return
        with _below(self.root, parts[:-1]) as folder:
            if not self._make_room(folder, parts[-1], name):
                return
            handle = os.open(parts[-1], _NEW, 0o600, dir_fd=folder)
            with os.fdopen(handle, "wb") as target:
                for chunk in chunks:
                    self._count_bytes(len(chunk))
                    target.write(chunk)
                target.flush()
                os.fchmod(handle, mode & 0o777 or 0o644)
                os.utime(handle, (mtime, mtime))

    def other(self, name: str, what: str) -> None:
        """Something that no artifact has: "a device"."""
        if self._parts(name) is not None:
            self._leave_out(name, f"it is {what}")

    def finish(self) -> int:
        """Give the directories their modes and times; how many entries there were."""
        for parts, mode, mtime in reversed(self._folders):
            with contextlib.suppress(OSError), _below(self.root, parts) as folder:
                os.fchmod(folder, mode | 0o700)
                os.utime(folder, (mtime, mtime))
        return self.count

    def _parts(self, name: str) -> list[str] | None:
        """The names in a path; None when they lead out, or to what git itself keeps."""
        self.cancel.raise_if_cancelled()
        self.count += 1
        if self.count > self.limits.entries:
            raise refused(f"the archive has more than {self.limits.entries} entries")
        parts = [part for part in name.split("/") if part not in {"", "."}]
        is_bad = name.startswith("/") or ".." in parts or "\0" in name or not parts
        if is_bad or parts[0].lower() == ".git":
            self._leave_out(name, "it leads out of the project")
            return None
        return parts

    def _make_room(self, folder: int, last: str, name: str) -> bool:
        try:
            os.unlink(last, dir_fd=folder)
        except FileNotFoundError:
            return True
        except IsADirectoryError:
            self._leave_out(name, "a directory is in its place")
            return False
        return True

    def _leave_out(self, name: str, why: str) -> None:
        self.warn(f"{shown(name)[:200]}: left out, {why}")

    def _count_bytes(self, count: int) -> None:
        self.cancel.raise_if_cancelled()
        self._size += count
        if self._size > self.limits.size_bytes:
            raise refused("the archive holds more than it says and than is allowed")
        if self._size - self._looked >= _LOOK_BYTES:
            self._looked = self._size
            check_space(self.project, self.limits)


@contextmanager
def unpacking(
    project: Path, warn: Callable[[str], None], cancel: CancelToken, limits: ExtractLimits
) -> Iterator[Unpacking]:
    """Ready to take entries until the end of the block. Raises `OSError`."""
    handle = os.open(project, _FOLDER)
    try:
        yield Unpacking(project, handle, warn, cancel, limits)
    finally:
        os.close(handle)


def check_space(project: Path, limits: ExtractLimits, wanted_bytes: int = 0) -> None:
    """Raise `HostError` when the disk has no room for so many bytes more."""
    place = os.statvfs(project)
    free = place.f_bavail * place.f_frsize
    if wanted_bytes + limits.spare_bytes > free:
        raise HostError(
            f"the archive takes {wanted_bytes / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free"
            if wanted_bytes
            else f"only {free / 1e9:.1f} GB are free",
            where=str(project),
            hint="Free some space on the build host.",
            kind=FailureKind.DISK,
        )


def refused(message: str) -> BuildFailedError:
    """What is wrong with the archive, as the fault of who made it."""
    return BuildFailedError(
        message,
        hint="Look at the artifacts of the earlier job; `dependencies` in .gitlab-ci.yml chooses"
        " whose are fetched.",
        kind=FailureKind.ARTIFACTS,
    )


@contextmanager
def _below(root: int, parts: list[str]) -> Iterator[int]:
    """A directory below the root, made where it is missing; what is no directory makes way."""
    handle = os.dup(root)
    try:
        for part in parts:
            following = _enter(handle, part)
            os.close(handle)
            handle = following
        yield handle
    finally:
        os.close(handle)


def _enter(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            os.unlink(name, dir_fd=folder)
        elif error.errno != errno.ENOENT:
            raise
    os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)
