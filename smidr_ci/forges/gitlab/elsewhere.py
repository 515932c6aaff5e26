"""What is too big for GitLab goes to the operator's store: file by file, or packed when many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

from smidr_ci.artifacts.model import shown
from smidr_ci.builds.model import ArtifactRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import BuildFailedError, FailureKind
from smidr_ci.files import open_untrusted
from smidr_ci.forges.external import External, PlacedFile
from smidr_ci.forges.gitlab.ports import JobLog
from smidr_ci.forges.gitlab.replay import Bytes, Replay
from smidr_ci.forges.gitlab.selection import Selection
from smidr_ci.stores.content import Content, sha256_of
from smidr_ci.text import printable

__all__ = ["Elsewhere", "is_offered"]

_BIG_BYTES: Final = 1 << 20
_SHA256_DIGITS: Final = 64
_MOST_FILES: Final = 50
"""More than that are one archive: nobody follows hundreds of links."""


def is_offered(size_bytes: int, largest_bytes: int | None) -> bool:
    """Whether GitLab is asked at all to take files of this size."""
    return largest_bytes is None or size_bytes <= largest_bytes


@dataclass(frozen=True)
class Elsewhere:
    """Brings one job's artifacts to the store, and tells in the job's log where they are."""

    external: External
    say: JobLog
    cancel: CancelToken
    placed: Callable[[PlacedFile], None]
    """Hears of each file that is there."""
    known: Mapping[str, ArtifactRecord] = field(default_factory=dict)
    """Files whose checksums are known already, by their paths in the selection."""

    def put(
        self, selection: Selection, replay: Replay, name: str, *, with_small: bool = False
    ) -> Selection:
        """Store the big files, or the archive of all; raises `SmidrError`.

        Returned is what GitLab may take nevertheless: reports and lists, for later jobs. Without
        big files, or `with_small`, all are stored.
        """
        sizes = dict(selection.file_sizes())
        big = [path for path, size in sizes.items() if size >= _BIG_BYTES or with_small] or [*sizes]
        self.say.warning("later jobs can't get from GitLab what is stored elsewhere")
        if len(big) > _MOST_FILES:
            self._put(name, self._archive(replay))
            return Selection(selection.tree, ())
        for path in big:
            self._put(path, self._content_of(selection, path))
        has_rest = len(big) < len(sizes)
        return Selection(selection.tree, set(selection.paths) - set(big) if has_rest else ())

    def _put(self, path: str, content: Content) -> None:
        self.say(f"Storing {shown(path)} outside of GitLab ({content.size_bytes} bytes)")
        try:
            found = self.external.put(path, content, self.cancel)
        except OSError as error:
            raise _unreadable(path, error) from error
        self.placed(found)
        self.say.info(f"{shown(path)}: {printable(found.place)}")
        self.say(f"  SHA-256 {found.sha256}")

    def _content_of(self, selection: Selection, path: str) -> Content:
        place, known = selection.place(path), self.known.get(path)
        if known is not None and len(known.sha256) == _SHA256_DIGITS:
            # Whoever stores it reads it once more, and finds what has changed.
            return Content.of_file(place, known.size_bytes, known.sha256)
        try:
            with open_untrusted(place) as file:
                size, sha256 = sha256_of(file, self.cancel)
        except OSError as error:
            raise _unreadable(path, error) from error
        return Content.of_file(place, size, sha256)

    def _archive(self, replay: Replay) -> Content:
        size, sha256 = sha256_of(_Chunks(replay.chunks()), self.cancel)
        return Content(lambda: nullcontext(_Chunks(replay.chunks())), size, sha256)


class _Chunks:
    """A stream of chunks, read like a file."""

    def __init__(self, chunks: Iterator[Bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; at -1 those of one chunk."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        wanted = len(self._rest) if size < 0 else size
        found, self._rest = self._rest[:wanted], self._rest[wanted:]
        return bytes(found)


def _unreadable(path: str, error: OSError) -> BuildFailedError:
    return BuildFailedError(
        f"can't read an artifact: {error.strerror or error}",
        where=shown(path),
        hint="Give the file read permission at the end of the job, or exclude it.",
        kind=FailureKind.ARTIFACTS,
    )
