"""Artifacts and reports go up (GitLab: POST jobs/:id/artifacts), one entry of the job at a time."""

from __future__ import annotations

import heapq
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from smidr_ci.artifacts.model import shown
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import BuildFailedError, FailureKind, SmidrError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.archive import LEVELS, gzip_pieces, raw_pieces, zip_pieces
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.elsewhere import Elsewhere, is_offered
from smidr_ci.forges.gitlab.payload import Artifact, Job
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.provenance import Provenance
from smidr_ci.forges.gitlab.replay import Piece, Replay
from smidr_ci.forges.gitlab.selection import Selection, Tree, select
from smidr_ci.forges.gitlab.sending import Answer, Delivery
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.text import printable

__all__ = ["Uploader"]

_SUFFIXES: Final = {"zip": ".zip", "gzip": ".gz"}
_HINTS: Final = {
    400: "Does artifacts:reports name a file of the right kind, and each kind only once?",
    401: "Is there a proxy that asks for a login?",
    403: "The job is over for the server, or its token has expired.",
    404: "Is the address of the GitLab instance right?",
    405: "Artifacts are switched off on this GitLab instance.",
}


@dataclass(frozen=True)
class Uploader:
    """Uploads what one job's `artifacts` choose in its project directory."""

    client: RunnerClient
    job: Job
    directory: Path
    scratch: Path
    """A directory of the job's own on the host, for what must be kept between attempts."""
    say: JobLog
    cancel: CancelToken
    overlays: Mapping[str, Path] = field(default_factory=dict)
    """Directories of ours that are seen at the top of the project's, by name."""
    expand: Callable[[str], str] = str
    """Puts the job's variables into a name or path."""
    untracked: Callable[[], Iterable[str]] = tuple
    """What git does not track, as relative paths; asked only when an entry wants it."""
    level: str = "default"
    """ARTIFACT_COMPRESSION_LEVEL."""
    clock: Clock = SystemClock()
    patience_s: float = 600.0
    """How long to go on trying while the server or the network is in trouble."""
    pause: Pause | None = None
    """Waits between attempts; the default ends with the cancel."""
    provenance: Provenance | None = None
    """Says in zip archives where they come from, when the job asks for it."""
    largest_bytes: int | None = None
    """Archives of more are not offered to the server; None for whatever it takes."""
    elsewhere: Elsewhere | None = None
    """Takes the files of archives that are too big."""
    why_not_elsewhere: str = ""
    """A hint for the user of an archive that is too big, when nothing takes it."""

    def upload(self, *, succeeded: bool) -> None:
        """Upload each entry whose `when` fits; all are tried, then the first failure is raised.

        An entry that chooses no files is a line in the log and no failure.
        """
        failures: list[SmidrError] = []
        for entry in self.job.artifacts:
            if not _is_due(entry, succeeded=succeeded) or not (entry.paths or entry.untracked):
                continue
            try:
                self._upload_one(entry)
            except SmidrError as error:
                self.cancel.raise_if_cancelled()
                self.say.warning(str(error))
                failures.append(error)
        if failures:
            raise failures[0]

    def _upload_one(self, entry: Artifact) -> None:
        selection = self._select(entry)
        if not selection.paths:
            self.say.warning("No files to upload")
            return
        name = _file_name(self.expand(entry.name) if entry.name else "artifacts", entry.format)
        if self.provenance is not None and entry.format == "zip":
            selection = self.provenance.added(selection, name)
        with Replay(self._pieces(entry, selection), self.scratch) as replay:
            packed = _Packed(name, entry, selection, replay)
            if limit := self._offer(packed):
                rest = self._put_elsewhere(packed, limit)
                if rest.paths:
                    self._deliver_rest(packed, rest)

    def _deliver_rest(self, packed: _Packed, rest: Selection) -> None:
        """What is left without the big files; when that is too much still, it follows them."""
        with Replay(self._pieces(packed.entry, rest), self.scratch) as replay:
            small = replace(packed, selection=rest, replay=replay)
            if limit := self._offer(small):
                self._put_elsewhere(small, limit, with_small=True)

    def _offer(self, packed: _Packed) -> str:
        """Upload it; why not, when it is an archive that is too big."""
        limit = self._own_limit(packed)
        if not limit and (answer := self._deliver(packed)) is not None:
            limit = f"the server says: {answer.text}"
        return limit

    def _own_limit(self, packed: _Packed) -> str:
        """Why the server is not even asked; empty when it is."""
        total = sum(size for _, size in packed.selection.file_sizes())
        largest = self.largest_bytes
        if packed.entry.type != "archive" or largest is None or is_offered(total, largest):
            return ""
        return f"gitlab.largest_artifact of the build host is {_size(largest)}"

    def _deliver(self, packed: _Packed) -> Answer | None:
        """Upload it; the answer when the server finds the archive too big."""
        entry, replay = packed.entry, packed.replay
        delivery = Delivery(
            client=self.client,
            token=self.job.token,
            url=self.client.artifacts_url(self.job.id),
            params=_params(entry),
            file_name=packed.name,
            replay=replay,
            cancel=self.cancel,
            warn=self.say.warning,
            clock=self.clock,
            patience_s=self.patience_s,
            pause=self.pause,
        )
        answer = delivery.run()
        if answer.status == 413 and entry.type == "archive":
            return answer
        if answer.status == 400 and "already exists" in answer.message:
            # An earlier try arrived, and its answer did not.
            self.say.warning(f"{printable(packed.name)}: {answer.message}")
        elif answer.status != 201:
            raise _refusal(answer, delivery.attempts, packed)
        else:
            size = _size(replay.produced_bytes)
            self.say(f"Uploaded {printable(packed.name)} as {entry.type}: {size}")
        return None

    def _put_elsewhere(self, packed: _Packed, limit: str, *, with_small: bool = False) -> Selection:
        too_large = _too_large(packed, limit, self.why_not_elsewhere)
        if self.elsewhere is None:
            raise too_large
        self.say.warning(f"{too_large.where}: {too_large.message}")
        try:
            return self.elsewhere.put(
                packed.selection, packed.replay, packed.name, with_small=with_small
            )
        except SmidrError as error:
            self.cancel.raise_if_cancelled()
            self.say.warning(f"it is not in the build host's store either: {error}")
            raise too_large from error

    def _select(self, entry: Artifact) -> Selection:
        return select(
            Tree(self.directory, self.overlays),
            paths=[self.expand(path) for path in entry.paths],
            exclude=[self.expand(path) for path in entry.exclude],
            untracked=self.untracked() if entry.untracked else (),
            warn=self.say.warning,
            note=self.say,
        )

    def _pieces(self, entry: Artifact, selection: Selection) -> Iterator[Piece]:
        if entry.format == "gzip":
            return gzip_pieces(selection, warn=self.say.warning)
        if entry.format == "raw":
            return raw_pieces(selection, warn=self.say.warning)
        if entry.format == "zip":
            level = LEVELS.get(self.level, LEVELS["default"])
            return zip_pieces(selection, level=level, warn=self.say.warning)
        raise BuildFailedError(
            f"an artifact of format {printable(entry.format)[:40]!r} can't be made",
            hint="smidr knows zip, gzip and raw.",
            kind=FailureKind.ARTIFACTS,
        )


def _is_due(entry: Artifact, *, succeeded: bool) -> bool:
    wanted = "on_success" if succeeded else "on_failure"
    return (entry.when or "on_success") in {wanted, "always"}


def _file_name(name: str, form: str) -> str:
    """`name` may be a path in strange variables; only its last part counts."""
    base = posixpath.basename(name.replace("\0", "").rstrip("/"))
    return f"{base or 'default'}{_SUFFIXES.get(form, '')}"


def _params(entry: Artifact) -> dict[str, str]:
    found = {
        "artifact_format": entry.format,
        "artifact_type": entry.type,
        "expire_in": entry.expire_in,
    }
    return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class _Packed:
    """An entry on its way."""

    name: str
    entry: Artifact
    selection: Selection
    replay: Replay

    @property
    def where(self) -> str:
        return f"{printable(self.name)} ({printable(self.entry.type)})"

    @property
    def figures(self) -> str:
        """Sizes: of the files, of what was sent of them, and the three biggest."""
        sizes = list(self.selection.file_sizes())
        biggest = heapq.nlargest(3, sizes, key=lambda item: item[1])
        named = ", ".join(f"{shown(path)} {_size(size)}" for path, size in biggest)
        total = _size(sum(size for _, size in sizes))
        count = self.replay.produced_bytes
        state = "" if self.replay.is_complete else " of it so far"
        packed = f", packed {_size(count)}{state}" if count else ""
        return f"{len(sizes)} files with {total}{packed}; the biggest are {named}"


def _refusal(answer: Answer, attempts: int, packed: _Packed) -> SmidrError:
    if answer.status == 413:
        return _too_large(packed, f"the server says: {answer.text}")
    tries = "" if attempts == 1 else f" after {attempts} tries"
    message = f"the upload failed{tries}: {answer.text}"
    if answer.is_transient:
        message += f"; it was {packed.figures}"
        hint = "Run the job again."
        return ForgeError(message, where=packed.where, hint=hint, status=answer.status)
    hint = _HINTS.get(answer.status, "")
    return BuildFailedError(message, where=packed.where, hint=hint, kind=FailureKind.ARTIFACTS)


def _too_large(packed: _Packed, limit: str, more: str = "") -> BuildFailedError:
    hint = (
        "Upload less, or ask the administrator to raise 'Maximum artifacts size' of the"
        " project, group or instance, or client_max_body_size of a proxy before GitLab."
    )
    return BuildFailedError(
        f"the artifact is too large for the server: {packed.figures} ({limit})",
        where=packed.where,
        hint=f"{hint} {more}".rstrip(),
        kind=FailureKind.ARTIFACTS,
    )


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
