"""One artifact from an agent to a file: it goes on where it stopped, and is checked at the end."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from smidr_ci.api.patience import Patience
from smidr_ci.api.wire import Wire
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.errors import AgentUnreachableError, BusyError, ConflictError, HostError
from smidr_ci.files import as_host_error
from smidr_ci.locks import try_flock

__all__ = ["download"]

_BLOCK_BYTES: Final = 1 << 20


def download(
    wire: Wire,
    url_path: str,
    artifact: ArtifactRecord,
    target: Path,
    patience: Patience,
    progress: Callable[[int], None],
) -> None:
    """Bring the artifact to `target`; what is there already of an earlier try is used.

    `progress` gets the bytes that are there. Raises `HostError` when the bytes are not those that
    the build left, or can't be written.
    """
    part = target.parent / f".smidr-{artifact.sha256[:32]}.part"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(part) as file:
            incoming = _Incoming(file, artifact, progress)
            _fill(wire, url_path, incoming, patience)
            os.fsync(file.fileno())
            if incoming.digest() != artifact.sha256:
                part.unlink()
                raise HostError(
                    "what came is not what the build left: its SHA-256 differs",
                    where=str(target),
                    hint="Try again; if it fails again, build again.",
                )
            os.replace(part, target)
    except OSError as error:
        raise as_host_error(error, "can't save the artifact", target) from error


class _Incoming:
    """The file as far as it came, and the checksum of that."""

    def __init__(
        self, file: BinaryIO, artifact: ArtifactRecord, progress: Callable[[int], None]
    ) -> None:
        self._file = file
        self.artifact = artifact
        self._progress = progress
        self._checksum = hashlib.sha256()
        self.size = 0
        if os.fstat(file.fileno()).st_size > artifact.size_bytes:
            self.restart()
        while block := file.read(_BLOCK_BYTES):
            self._checksum.update(block)
            self.size += len(block)

    @property
    def is_whole(self) -> bool:
        return self.size >= self.artifact.size_bytes

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._checksum = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._file.write(piece)
        self._checksum.update(piece)
        self.size += len(piece)
        if self.size > self.artifact.size_bytes:
            raise OSError("more came than the artifact has")
        self._progress(self.size)

    def digest(self) -> str:
        return self._checksum.hexdigest()


def _fill(wire: Wire, url_path: str, incoming: _Incoming, patience: Patience) -> None:
    incoming.add(b"")  # tells the progress what is there
    while not incoming.is_whole:
        wishes = {"Range": f"bytes={incoming.size}-", "If-Range": f'"{incoming.artifact.sha256}"'}
        try:
            with wire.ask("GET", url_path, headers=wishes if incoming.size else {}) as answer:
                if answer.status != 206 and incoming.size:
                    incoming.restart()
                for piece in answer.pieces():
                    incoming.add(piece)
                    patience.succeeded()
                if not incoming.is_whole:
                    raise AgentUnreachableError("the agent sent too little", where=wire.where)
        except (AgentUnreachableError, BusyError) as error:
            patience.wait_after(error)


def _opened(part: Path) -> BinaryIO:
    """The partial file, for this process alone; raises `ConflictError` or `OSError`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(part, flags, 0o644)
    if not try_flock(fd, fcntl.LOCK_EX):
        os.close(fd)
        raise ConflictError("another download of this artifact is at work", where=str(part))
    return os.fdopen(fd, "r+b")
