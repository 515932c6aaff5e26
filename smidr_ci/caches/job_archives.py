"""Archives that a forge's jobs keep for later jobs (`cache:` of `.gitlab-ci.yml`), on this host.

`<root>/<owner>/<key>/cache.zip`: an owner is a project together with how far its jobs are trusted,
so that no job ever reads what a less trusted one wrote. Readers see whole archives, old or new.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from smidr_ci.caches.item_cache import Item, marked_folders
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import BusyError, FailureKind, HostError
from smidr_ci.files import as_host_error, make_marked_dir, open_untrusted, remove_marked_tree
from smidr_ci.locks import KernelLock, try_lock

__all__ = ["ARCHIVE", "JobArchives", "job_archive_items"]

ARCHIVE: Final = "cache.zip"
_LOCK: Final = "lock"
_BEGUN: Final = ".begun-"
"""How the name of a file begins that its writer has not finished."""
_LONGEST: Final = 120
_PAUSE_S: Final = 0.2
_LOOK_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class JobArchives:
    """All archives of a host; threads and processes may use them at once."""

    root: Path
    max_bytes: int | None = None
    """What they may have at most, each one and all together."""
    spare_bytes: int = 1 << 30
    """What must stay free on the disk."""
    patience_s: float = 600.0
    """How long to wait for somebody who writes the same archive."""
    clock: Clock = SystemClock()

    def place(self, owner: str, key: str) -> Path:
        """Where the archive is, if there is one. `owner` and `key` may be any text."""
        return self.root / _as_name(owner) / _as_name(key) / ARCHIVE

    def open(self, owner: str, key: str) -> FileIO | None:
        """The newest whole archive, which stays readable when it is replaced; None without one.

        Raises `OSError`.
        """
        place = self.place(owner, key)
        try:
            file = open_untrusted(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with contextlib.suppress(OSError):
            os.utime(place.parent)  # what collection goes by
        return file

    def save(
        self, owner: str, key: str, chunks: Iterable[bytes | memoryview], cancel: CancelToken
    ) -> int:
        """Put an archive in the place of the one before, when all of it is there; its size.

        Raises `BusyError` when somebody else writes it for too long, `HostError` when it gets too
        big, `CancelledError`, and what `chunks` raise. The one before stays then.
        """
        place = self.place(owner, key)
        try:
            with self._alone(place.parent, cancel):
                for left in place.parent.glob(f"{_BEGUN}*"):
                    left.unlink()
                size = self._replace(place, chunks, cancel)
            self._make_room(place.parent, cancel)
        except OSError as error:
            raise as_host_error(error, "can't keep the cache", place.parent) from error
        return size

    def _make_room(self, newest: Path, cancel: CancelToken) -> None:
        """Let the others go that were used least recently, as far as the limit says."""
        if self.max_bytes is None:
            return
        items = sorted(job_archive_items(self.root, cancel), key=lambda item: item.use_s)
        total = sum(item.size_bytes for item in items)
        for item in items:
            if total > self.max_bytes and item.path != str(newest) and item.remove():
                total -= item.size_bytes

    @contextmanager
    def _alone(self, folder: Path, cancel: CancelToken) -> Iterator[KernelLock]:
        until = self.clock.monotonic() + self.patience_s
        while True:
            cancel.raise_if_cancelled()
            # Collection may take the folder away until the lock is ours.
            with contextlib.suppress(FileNotFoundError):
                make_marked_dir(folder, mode=0o700)
                lock = try_lock(folder / _LOCK)
                if lock is not None:
                    break
            if self.clock.monotonic() >= until:
                raise BusyError("another job has been writing the same cache all the time")
            cancel.wait(_PAUSE_S)
        with lock:
            yield lock

    def _replace(
        self, place: Path, chunks: Iterable[bytes | memoryview], cancel: CancelToken
    ) -> int:
        handle, name = tempfile.mkstemp(prefix=_BEGUN, dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                size = self._write(file, chunks, cancel)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return size

    def _write(
        self, file: IO[bytes], chunks: Iterable[bytes | memoryview], cancel: CancelToken
    ) -> int:
        size, looked = 0, -_LOOK_BYTES
        for chunk in chunks:
            cancel.raise_if_cancelled()
            size += len(chunk)
            if self.max_bytes is not None and size > self.max_bytes:
                raise HostError(
                    f"it gets bigger than {self.max_bytes / 1e9:.1f} GB, which is all that this"
                    " host keeps for jobs",
                    hint="Cache fewer paths; the operator's limit is cache.job_caches_max_size.",
                    kind=FailureKind.DISK,
                )
            if size - looked >= _LOOK_BYTES:
                looked = size
                self._check_space()
            file.write(chunk)
        return size

    def _check_space(self) -> None:
        disk = os.statvfs(self.root)
        if disk.f_bavail * disk.f_frsize < self.spare_bytes:
            raise HostError(
                "the disk is nearly full",
                where=str(self.root),
                hint="Free some space there; 'smidr cache gc' helps.",
                kind=FailureKind.DISK,
            )


def job_archive_items(root: Path, cancel: CancelToken) -> Iterator[Item]:
    """Each archive with its folder as a thing that can be collected, but while it is written."""
    try:
        with os.scandir(root) as entries:
            owners = [Path(item.path) for item in entries if item.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for owner in owners:
        yield from marked_folders(owner, cancel, _remove)


def _remove(folder: Path, owner: Path) -> bool:
    try:
        lock = try_lock(folder / _LOCK)
        if lock is None:
            return False
        with lock:
            remove_marked_tree(folder, owner)
        with contextlib.suppress(OSError):  # it keeps others
            owner.rmdir()
    except OSError:
        return False
    return True


def _as_name(text: str) -> str:
    """One name of a file that no other text has, and a reader may know again."""
    name = quote(text, safe="+,=@", errors="surrogateescape")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) <= _LONGEST:
        return name or "%"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:_LONGEST]}%-{digest[:24]}"
