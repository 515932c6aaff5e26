"""Which files of a checkout go into an artifact.

What lies there was made by a job: no link is followed, so nothing outside is ever chosen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.artifacts.model import shown
from smidr_ci.errors import BuildFailedError, ConfigError, FailureKind
from smidr_ci.forges.gitlab.patterns import Pattern

__all__ = ["Selection", "Tree", "select"]

_MAX_ENTRIES: Final = 500_000
_Place = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Tree:
    """A project directory as an upload sees it: with directories of our own laid over it."""

    root: Path
    overlays: Mapping[str, Path] = field(default_factory=dict)
    """A relative path, and the directory or file of ours that is seen there instead of the job's.

    Parents of such a path are the project's top or overlays themselves.
    """

    def place(self, path: str) -> Path:
        """Where a relative path lies on the disk."""
        above = path
        while above:
            if above in self.overlays:
                return self.overlays[above] / path.removeprefix(above).lstrip("/")
            above = above.rpartition("/")[0]
        return self.root / path

    def entries(self, folder: str) -> list[tuple[str, bool]]:
        """Names in a directory, and whether each is a directory itself; links are none."""
        found = {
            path.rpartition("/")[2]: place.is_dir()
            for path, place in self.overlays.items()
            if path.rpartition("/")[0] == folder
        }
        try:
            with os.scandir(self.place(folder)) as entries:
                for entry in entries:
                    found.setdefault(entry.name, entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            if folder:
                raise
        return list(found.items())


class Selection:
    """Relative paths with `/`, in order; directories are entries of their own."""

    def __init__(self, tree: Tree, paths: Iterable[str]) -> None:
        self.tree = tree
        self.paths = sorted(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def place(self, path: str) -> Path:
        """Where an entry lies on the disk."""
        return self.tree.place(path)

    def file_sizes(self) -> Iterator[tuple[str, int]]:
        """Path and size in bytes of each regular file."""
        for path in self.paths:
            info = self.place(path).lstat()
            if stat.S_ISREG(info.st_mode):
                yield path, info.st_size


def select(
    tree: Tree,
    *,
    paths: Sequence[str],
    exclude: Sequence[str] = (),
    untracked: Iterable[str] = (),
    warn: Callable[[str], None],
    note: Callable[[str], None],
) -> Selection:
    """Choose by the globs, relative to the tree or absolute inside it, and take away `exclude`.

    `untracked` are paths that git told. Words for the log are the official runner's. Raises
    `ConfigError` for a glob that makes no sense.
    """
    chosen: dict[str, None] = {}
    root = tree.root
    excluded = _Excluded(root, exclude)
    for text in paths:
        found = excluded.filter(_find(tree, text, warn))
        if found is None:
            continue
        _tell(text, len(found), warn, note)
        chosen |= dict.fromkeys(found)
    others = list(untracked)
    if others:
        kept = excluded.filter(others) or []
        note(f"untracked: found {len(kept)} files")
        chosen |= dict.fromkeys(kept)
    for text, count in excluded.counts.items():
        if count:
            note(f"{text}: excluded {count} files")
    return Selection(tree, chosen)


class _Excluded:
    def __init__(self, root: Path, texts: Sequence[str]) -> None:
        self._patterns = [(text, Pattern.of(_relative(root, text) or "")) for text in texts if text]
        self.counts = dict.fromkeys((text for text, _ in self._patterns), 0)
        self._seen: set[str] = set()

    def filter(self, paths: Iterable[str] | None) -> list[str] | None:
        """The paths that no pattern takes away; None stays None."""
        return None if paths is None else [path for path in paths if not self._takes(path)]

    def _takes(self, path: str) -> bool:
        for text, pattern in self._patterns:
            if pattern.matches(path):
                self.counts[text] += path not in self._seen
                self._seen.add(path)
                return True
        return False


def _tell(text: str, count: int, warn: Callable[[str], None], note: Callable[[str], None]) -> None:
    if count:
        note(f"{text}: found {count} matching artifact files and directories")
    else:
        warn(
            f"{text}: no matching files. Ensure that the artifact path is relative to the"
            " project's directory"
        )


def _find(tree: Tree, text: str, warn: Callable[[str], None]) -> list[str] | None:
    if not text.strip():
        warn("an artifact path is empty")
        return None
    relative = _relative(tree.root, text)
    if relative is None:
        warn(f"artifact path is not a subpath of project directory: {text}")
        return None
    return list(_walk(tree, Pattern.of(relative)))


def _relative(root: Path, text: str) -> str | None:
    """The glob relative to the root, as plain text; None when it leads out."""
    place = os.path.normpath(os.path.join(root, text.replace("//", "/")))
    if place == str(root):
        return "**"
    inside = f"{root}/"
    return place.removeprefix(inside) if place.startswith(inside) else None


def _walk(tree: Tree, pattern: Pattern) -> Iterator[str]:
    """All that matches, and all below a directory that matches."""
    waiting: list[tuple[str, _Place | None]] = [("", pattern.start())]
    count = 0
    while waiting:
        folder, place = waiting.pop()
        for name, is_folder in _entries(tree, folder):
            path = f"{folder}/{name}" if folder else name
            reached = None if place is None else pattern.step(place, name)
            if reached is None or pattern.accepts(reached):
                reached = None  # all below is taken too
                count += 1
                _check_count(count, pattern.text)
                yield path
            if is_folder and (reached is None or reached):
                waiting.append((path, reached))


def _entries(tree: Tree, folder: str) -> list[tuple[str, bool]]:
    try:
        return tree.entries(folder)
    except PermissionError as error:
        raise ConfigError(
            f"can't look for artifacts in {shown(folder) or '.'}: {error.strerror}",
            hint="Give the directory read permission at the end of the job, or exclude it.",
            kind=FailureKind.ARTIFACTS,
        ) from error


def _check_count(count: int, text: str) -> None:
    if count > _MAX_ENTRIES:
        raise BuildFailedError(
            f"{text}: matches more than {_MAX_ENTRIES} files",
            hint="Choose fewer under artifacts:paths, or pack them into one file.",
            kind=FailureKind.ARTIFACTS,
        )
