"""Artifacts for strangers: only what the manifest lists, and no way out of their directory."""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from smidr_ci.artifacts.model import MANIFEST_NAME, Artifact, Manifest
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.errors import HostError, NotFoundError

__all__ = ["OpenArtifact", "kept_artifacts", "open_artifact"]

_MAX_LINKS: Final = 8
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class OpenArtifact:
    """A file that can be read from any offset; whoever gets it closes `file`."""

    file: BinaryIO
    path: str
    size_bytes: int
    sha256: str


def kept_artifacts(folder: Path) -> tuple[ArtifactRecord, ...]:
    """What the manifest of an artifact directory lists; empty when there is no directory (more).

    Raises `HostError` when the manifest is damaged.
    """
    if not (folder / MANIFEST_NAME).exists():
        return ()
    return tuple(
        ArtifactRecord(item.path, item.size_bytes, item.sha256)
        for item in Manifest.read(folder).artifacts
    )


def open_artifact(folder: Path, path: str) -> OpenArtifact:
    """Open a file by exactly the path that the manifest has; a link is followed to a listed file.

    Raises `NotFoundError`, or `HostError` when the file is not what the manifest says.
    """
    if not (folder / MANIFEST_NAME).exists():
        raise NotFoundError("the build has no artifacts, or they were removed")
    listed = {item.path: item for item in Manifest.read(folder).artifacts}
    artifact = listed.get(path)
    if artifact is None:
        raise NotFoundError(f"the build has no artifact {path[:200]!r}")
    try:
        file = _open_below(folder, _file_behind(artifact, listed).path)
    except OSError as error:
        raise _damaged(folder / path, error.strerror or str(error)) from error
    size = os.fstat(file.fileno()).st_size
    if size != artifact.size_bytes:
        file.close()
        raise _damaged(folder / path, f"it has {size} bytes and not {artifact.size_bytes}")
    return OpenArtifact(file, artifact.path, artifact.size_bytes, artifact.sha256)


def _file_behind(artifact: Artifact, listed: dict[str, Artifact]) -> Artifact:
    for _ in range(_MAX_LINKS):
        if artifact.link is None:
            return artifact
        target = posixpath.normpath(posixpath.join(posixpath.dirname(artifact.path), artifact.link))
        if target not in listed:
            break
        artifact = listed[target]
    raise NotFoundError("the artifact is a link that leads to none")


def _open_below(folder: Path, path: str) -> BinaryIO:
    """Open `folder/path` with no symlink on the way; raises `OSError`."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise OSError(f"{path!r} leads out")
    here = os.open(folder, _FOLDER)
    try:
        for part in parts[:-1]:
            there = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = there
        fd = os.open(parts[-1], _FILE, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is no regular file")
    return os.fdopen(fd, "rb")


def _damaged(path: Path, reason: str) -> HostError:
    return HostError(
        f"the artifact is not what it was: {reason}",
        where=str(path),
        hint="The disk may be damaged, or somebody changed the file. Build again.",
    )
