"""An artifact on its way: `<name>.part`, which a later try goes on with, then its own name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.errors import ConflictError
from smidr_ci.files import as_host_error

__all__ = ["PartialFile"]


class PartialFile:
    """What has come of a file so far."""

    def __init__(self, file: BufferedRandom, path: Path, target: Path) -> None:
        self._file = file
        self._path = path
        self._target = target

    @classmethod
    @contextmanager
    def of(cls, target: Path) -> Iterator[PartialFile]:
        """The part of `target` that is there, for this process alone.

        Raises `HostError`, or `ConflictError` when another process is at it.
        """
        path = target.with_name(f"{target.name}.part")
        with _telling(path):
            file = _open_alone(path, target)
        with file:
            yield cls(file, path, target)

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self._file.seek(0, os.SEEK_END)

    def add(self, offset: int, data: bytes) -> None:
        """Write bytes where they belong; raises `HostError`."""
        with _telling(self._path):
            self._file.seek(offset)
            self._file.write(data)

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()

    def has_all(self, artifact: ArtifactRecord) -> bool:
        """Whether it is the artifact, by size and SHA-256; raises `HostError`."""
        with _telling(self._path):
            self._file.flush()
            if self.size != artifact.size_bytes:
                return False
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest() == artifact.sha256

    def finish(self) -> None:
        """Give it its own name; raises `HostError`."""
        with _telling(self._target):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._path, self._target)


def _open_alone(path: Path, target: Path) -> BufferedRandom:
    # A link that somebody put there must not lead the download elsewhere.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o666), "r+b")
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConflictError(
            "another download goes there", where=str(target), hint="Wait for its end."
        ) from None
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise as_host_error(error, "can't keep the artifact", path) from error
