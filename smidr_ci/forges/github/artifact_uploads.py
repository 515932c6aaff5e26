"""A build's artifacts on their way to its job's page: what is uploaded, and what is only named.

Trouble here is a warning: the result of the build is told by its check run, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from smidr_ci.artifacts.model import shown
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import SmidrError
from smidr_ci.files import open_untrusted
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.artifact_names import mime_type_of, names_for, next_name
from smidr_ci.forges.github.blocks import BlockUpload, Source, Uploaded
from smidr_ci.forges.github.rates import Pause
from smidr_ci.forges.github.results import Created, ResultsService, StoredArtifact
from smidr_ci.forges.github.transport import Transport

__all__ = [
    "MANIFEST",
    "AgentStore",
    "ArtifactUploads",
    "ExternalStore",
    "UploadReport",
    "is_uploaded",
]

log = logging.getLogger(__name__)

MANIFEST: Final = "smidr-artifacts.json"
_MOST_FILES: Final = 200
"""GitHub takes 500 of a job, and other steps may have some."""
_TRIES_FOR_A_NAME: Final = 20
_ON_HOST: Final = "on the build host: smidr artifacts list"


class ExternalStore(Protocol):
    """Where files go that are too big for GitHub."""

    def place(self, artifact: ArtifactRecord, path: Path) -> str:
        """Put it there if need be; a URL or a sentence that says where it is.

        Raises `SmidrError`, and `OSError` when the file can't be opened.
        """


@dataclass(frozen=True)
class AgentStore:
    """They stay where the build left them, and the agent's own API gives them out."""

    build_id: str
    base_url: str = ""
    """Of the agent as users reach it; empty when they don't."""

    def place(self, artifact: ArtifactRecord, path: Path) -> str:  # noqa: ARG002 - it stays
        """The URL of the agent's API, or what to run on the host."""
        if not self.base_url:
            return f"on the build host: smidr artifacts list {self.build_id}"
        base = self.base_url.rstrip("/")
        return f"{base}/api/v1/builds/{quote(self.build_id)}/artifacts/{quote(artifact.path)}"


@dataclass(frozen=True)
class UploadReport:
    """What became of each file."""

    uploaded: tuple[tuple[ArtifactRecord, StoredArtifact], ...] = ()
    placed: tuple[tuple[ArtifactRecord, str], ...] = ()
    """Not in GitHub; where they are."""
    warnings: tuple[str, ...] = ()


@dataclass
class _Progress:
    uploaded: list[tuple[ArtifactRecord, StoredArtifact]] = field(default_factory=list)
    placed: list[tuple[ArtifactRecord, str]] = field(default_factory=list)
    links: list[tuple[ArtifactRecord, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ArtifactUploads:
    """Uploads the files of one build."""

    service: ResultsService
    transport: Transport
    store: ExternalStore
    largest_bytes: int
    """Bigger files are only named."""
    cancel: CancelToken
    say: Callable[[str], None] = log.info
    pause: Pause | None = None

    def run(self, folder: Path, artifacts: Sequence[ArtifactRecord]) -> UploadReport:
        """Each file as an artifact of its own, without a zip; then a manifest of all.

        Raises `CancelledError` only.
        """
        done = _Progress()
        names = names_for((item.path for item in artifacts), taken=(MANIFEST,))
        is_over = False
        for number, item in enumerate(artifacts):
            self.cancel.raise_if_cancelled()
            if (folder / item.path).is_symlink():
                done.links.append((item, os.readlink(folder / item.path)))
                continue
            is_wanted = is_uploaded(item.size_bytes, self.largest_bytes)
            if is_over or not is_wanted or number >= _MOST_FILES:
                self._place(folder, item, done)
                continue
            try:
                stored = self._upload(folder / item.path, item, names[item.path])
                done.uploaded.append((item, stored))
            except ForgeError as error:
                done.warnings.append(f"{shown(item.path)} is not in GitHub: {error}")
                # Nothing further would go better with this token or quota.
                is_over = error.status in {401, 403}
                self._place(folder, item, done)
            except OSError as error:
                done.warnings.append(f"{shown(item.path)} can't be read: {error.strerror}")
        if artifacts and not is_over:
            self._upload_manifest(done)
        return UploadReport(tuple(done.uploaded), tuple(done.placed), tuple(done.warnings))

    def _place(self, folder: Path, item: ArtifactRecord, done: _Progress) -> None:
        place = _ON_HOST
        try:
            place = self.store.place(item, folder / item.path)
        except (SmidrError, OSError) as error:
            self.cancel.raise_if_cancelled()
            done.warnings.append(f"{shown(item.path)} is nowhere but on the host: {error}")
        done.placed.append((item, place))

    def _upload(self, path: Path, item: ArtifactRecord, name: str) -> StoredArtifact:
        with open_untrusted(path) as stream:
            self.say(f"Uploading {shown(item.path)} ({item.size_bytes} bytes)")
            found = self._announce(name, item)
            if isinstance(found, StoredArtifact):
                return found
            return self._send(found, stream, item.size_bytes)

    def _announce(self, name: str, item: ArtifactRecord) -> Created | StoredArtifact:
        """A fresh artifact; or the one that an earlier try has left, finished with this content."""
        for _ in range(_TRIES_FOR_A_NAME):
            created = self.service.create(name, mime_type_of(name))
            if created is not None:
                return created
            stored = self.service.find(name)
            if stored is not None and stored.digest == f"sha256:{item.sha256}":
                return stored
            name = next_name(name)
        raise ForgeError(f"all names like {name} are taken in this run")

    def _send(self, created: Created, stream: Source, size_bytes: int) -> StoredArtifact:
        upload = BlockUpload(
            self.transport,
            created.upload_url,
            mime_type_of(created.name),
            self.cancel,
            pause=self.pause,
        )
        try:
            sent: Uploaded = upload.run(stream, size_bytes)
            return self.service.finalize(created.name, sent.size_bytes, sent.digest)
        except SmidrError:
            with contextlib.suppress(ForgeError):
                self.service.delete(created.name)  # half of a file helps nobody
            raise

    def _upload_manifest(self, done: _Progress) -> None:
        raw = json.dumps({"version": 1, "artifacts": list(_entries(done))}, indent=1).encode()
        item = ArtifactRecord(MANIFEST, len(raw), "")
        try:
            found = self._announce(MANIFEST, item)
            if isinstance(found, Created):
                self._send(found, BytesIO(raw), len(raw))
        except ForgeError as error:
            done.warnings.append(f"the manifest is not in GitHub: {error}")


def is_uploaded(size_bytes: int, largest_bytes: int) -> bool:
    """Whether GitHub gets the file itself, and not only its place."""
    return size_bytes <= largest_bytes


def _entries(done: _Progress) -> Iterable[dict[str, Any]]:
    for item, stored in done.uploaded:
        digest = stored.digest.removeprefix("sha256:") or item.sha256
        yield {
            "path": item.path,
            "size": stored.size_bytes,
            "sha256": digest,
            "artifact": stored.name,
            "artifact_id": stored.artifact_id,
        }
    for item, place in done.placed:
        yield {"path": item.path, "size": item.size_bytes, "sha256": item.sha256, "place": place}
    for item, target in done.links:
        yield {"path": item.path, "link": target}
