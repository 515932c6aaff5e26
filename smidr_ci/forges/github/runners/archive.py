"""Unpacks the official runner from an archive whose SHA-256 is known.

Each runner gets a tree of its own, unpacked for it: a job may be the same user as the agent, and
could change any tree that later runners are made from. The archive may be changed too, so what is
unpacked is hashed on the way, from the very bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from smidr_ci.errors import ConfigError, HostError, SmidrError
from smidr_ci.files import as_host_error, open_untrusted

__all__ = ["Archive", "ArchiveLimits", "unpack", "verify"]

_CHUNK: Final = 1 << 20
_LISTENER: Final = "bin/Runner.Listener"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_LINK: Final = 4096


@dataclass(frozen=True)
class Archive:
    """One version of the official runner."""

    path: Path
    sha256: str
    version: str = ""
    """`2.336.0`, as far as its name tells."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What one archive may hold at most; the real one has some 10 000 files with 600 MB."""

    entries: int = 200_000
    size_bytes: int = 4 << 30


class _Hashed:
    """A file that is read in order, and hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        chunk = self._file.read(size)
        self._hash.update(chunk)
        return chunk

    def digest(self) -> str:
        """The SHA-256 of the whole file."""
        while self.read(_CHUNK):
            pass
        return self._hash.hexdigest()


def verify(archive: Archive) -> None:
    """Raise `ConfigError` for an archive with another SHA-256, `HostError` for none."""
    with _opened(archive) as file:
        _compare(archive, _Hashed(file).digest())


def unpack(archive: Archive, target: Path, limits: ArchiveLimits | None = None) -> None:
    """Unpack into the new directory `target`; raises `ConfigError` or `HostError`.

    What is there then is of no use and may be removed.
    """
    verify(archive)  # nothing of a bad one is written
    try:
        target.mkdir(mode=0o755)
        with _opened(archive) as file, _directory(target) as root:
            hashed = _Hashed(file)
            # tarfile's own stream of gzip copies all that it has unpacked ahead with each read.
            with gzip.open(hashed) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:  # type: ignore[call-overload] # it only reads
                _Unpacking(tar, root, limits or ArchiveLimits()).run()
            _compare(archive, hashed.digest())
    except (
        tarfile.TarError,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        UnicodeError,
        ValueError,
    ) as error:
        raise _broken(archive, f"can't be unpacked: {error}") from error
    except OSError as error:
        raise as_host_error(error, "can't unpack the official runner", target) from error
    if not os.access(target / _LISTENER, os.X_OK):
        raise _broken(archive, f"has no {_LISTENER}")


def _compare(archive: Archive, found: str) -> None:
    if found != archive.sha256:
        raise ConfigError(
            f"the archive of the official runner has the SHA-256 {found}, and not {archive.sha256}",
            where=str(archive.path),
            hint="Was it replaced? Put the right one there, or its SHA-256 into agent.yaml "
            "(github.runners.sha256).",
        )


@dataclass
class _Unpacking:
    tar: tarfile.TarFile
    root: int
    limits: ArchiveLimits

    def run(self) -> None:
        left = self.limits.size_bytes
        for number, entry in enumerate(self.tar):
            left -= max(entry.size, 0)
            if number >= self.limits.entries or left < 0:
                raise ValueError("it holds more than a runner does")
            parts = _parts(entry.name)
            if parts:
                self._one(entry, parts)

    def _one(self, entry: tarfile.TarInfo, parts: list[str]) -> None:
        if entry.isdir():
            with _below(self.root, parts):
                return
        with _below(self.root, parts[:-1]) as folder:
            if entry.isreg():
                self._file(entry, folder, parts[-1])
            elif entry.issym():
                _check_link(parts, entry.linkname)
                os.symlink(entry.linkname, parts[-1], dir_fd=folder)
            elif entry.islnk():
                self._copy(_parts(entry.linkname), folder, parts[-1])
            else:
                raise ValueError(f"{entry.name!r:.200} is neither a file nor a link")

    def _file(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        source = self.tar.extractfile(entry)
        if source is None:
            raise ValueError(f"{entry.name!r:.200} has no content")
        handle = os.open(name, _NEW, 0o600, dir_fd=folder)
        with os.fdopen(handle, "wb") as target, source:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
            os.fchmod(target.fileno(), 0o755 if entry.mode & 0o111 else 0o644)

    def _copy(self, source: list[str], folder: int, name: str) -> None:
        """A hard link in the archive: two names of one file would be two ways to change it."""
        with _below(self.root, source[:-1]) as there:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(source[-1], flags, dir_fd=there)
        with os.fdopen(handle, "rb") as original:
            mode = os.fstat(original.fileno()).st_mode & 0o777
            with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=folder), "wb") as target:
                while chunk := original.read(_CHUNK):
                    target.write(chunk)
                os.fchmod(target.fileno(), mode)


def _parts(name: str) -> list[str]:
    """The names in an entry's path, `./` left out; raises ValueError for one that leads out."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r:.200} leads out of the directory")
    return parts


def _check_link(parts: list[str], target: str) -> None:
    place = posixpath.normpath(posixpath.join("/".join(parts[:-1]), target))
    is_inside = not target.startswith("/") and not f"{place}/".startswith("../")
    if not target or len(target) > _LONGEST_LINK or "\0" in target or not is_inside:
        raise ValueError(f"the link {'/'.join(parts)!r:.200} leads out of the directory")


@contextlib.contextmanager
def _below(root: int, parts: list[str]) -> Iterator[int]:
    """A directory below the root, made where it is missing; no link is followed."""
    handle = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=handle)
            following = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = following
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    handle = os.open(path, _FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(archive: Archive) -> Iterator[IO[bytes]]:
    try:
        file = open_untrusted(archive.path)
    except OSError as error:
        raise HostError(
            f"can't read the archive of the official runner: {error.strerror or error}",
            where=str(archive.path),
            hint="github.runners.tarball in agent.yaml names it.",
        ) from error
    with file:
        yield file


def _broken(archive: Archive, why: str) -> SmidrError:
    return ConfigError(
        f"the archive of the official runner {why}",
        where=str(archive.path),
        hint="It must be GitHub's actions-runner-linux-*.tar.gz, for this host's architecture.",
    )
