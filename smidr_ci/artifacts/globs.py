"""Globs over a deploy directory.

`*`, `?` and `[...]` match within one name, also a leading dot; `**` as a whole part matches any
number of directories. A glob that names a directory means all in it.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from smidr_ci.artifacts.deploy import DeployTree, OutsideError
from smidr_ci.errors import BuildFailedError, FailureKind

__all__ = ["DEFAULT_GLOBS", "Found", "find"]

DEFAULT_GLOBS: Final = ("images/**", "sdk/**")
"""What an image build leaves for people: images, kernels, manifests, and SDK installers. Not the
package feeds (`rpm deb ipk`), `licenses`, `sources` and `spdx`, which are big and asked for rarely.
"""

_MAX_FOUND: Final = 500_000


@dataclass(frozen=True)
class Found:
    """A file, link or oddity; `name` has no link in its directories."""

    name: str
    mode: int


def find(tree: DeployTree, glob: str) -> list[Found]:
    """What one glob chooses, in the order of the names; no directories but unreadable ones.

    A link to a directory is followed where the glob gives its plain name, never by a wildcard.
    """
    found = {item.name: item for item in _Search(tree, glob).run()}
    return [found[name] for name in sorted(found)]


class _Search:
    """Walks only where the glob can lead, and to each place once for each part of the glob."""

    def __init__(self, tree: DeployTree, glob: str) -> None:
        parts = [part for part in glob.split("/") if part not in {"", "."}]
        # Since a directory means all in it, `**` at the end only says that it must be one.
        self._wants_folder = parts[-1:] == ["**"]
        while parts[-1:] == ["**"]:
            parts.pop()
        self._matchers = [None if part == "**" else _matcher(part) for part in parts]
        self._is_plain = [not set("*?[") & set(part) for part in parts]
        self._tree = tree
        self._waiting = [("", 0)]
        self._seen = set[tuple[str, int]]()
        self._count = 0

    def run(self) -> Iterator[Found]:
        while self._waiting:
            state = self._waiting.pop()
            if state in self._seen:
                continue
            self._seen.add(state)
            folder, position = state
            if position == len(self._matchers):
                yield from self._take_all(folder)
            elif (matcher := self._matchers[position]) is None:
                self._waiting.append((folder, position + 1))  # `**` may stand for nothing at all
                self._descend(folder, position)
            else:
                yield from self._match(folder, position, matcher)

    def _take_all(self, folder: str) -> Iterator[Found]:
        for item in self._entries(folder):
            if stat.S_ISDIR(item.mode) and item.name != folder:
                self._waiting.append((item.name, len(self._matchers)))
            else:
                yield item

    def _descend(self, folder: str, position: int) -> None:
        self._waiting.extend(
            (item.name, position)
            for item in self._entries(folder)
            if stat.S_ISDIR(item.mode) and item.name != folder
        )

    def _match(
        self, folder: str, position: int, matcher: Callable[[str], object]
    ) -> Iterator[Found]:
        is_last = position + 1 == len(self._matchers)
        for item in self._entries(folder):
            if item.name == folder or not matcher(item.name.rpartition("/")[2]):
                continue
            target = _folder_of(self._tree, item, may_follow=self._is_plain[position])
            if target is not None:
                self._waiting.append((target, position + 1))
            elif is_last and not self._wants_folder:
                yield item

    def _entries(self, folder: str) -> list[Found]:
        """All in a directory; the directory itself when it can't be read."""
        try:
            found = list(_scan(self._tree, folder))
        except OSError:
            return [Found(folder, stat.S_IFDIR)] if folder else []
        self._count += len(found)
        if self._count > _MAX_FOUND:
            raise BuildFailedError(
                f"the globs of the artifacts reach more than {_MAX_FOUND} files",
                hint="Choose fewer with the globs under 'artifacts' in smidr.yaml.",
                kind=FailureKind.ARTIFACTS,
            )
        return found


def _matcher(part: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(part)).match


def _scan(tree: DeployTree, folder: str) -> Iterator[Found]:
    with os.scandir(tree.path(folder)) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            yield Found(name, entry.stat(follow_symlinks=False).st_mode)


def _folder_of(tree: DeployTree, item: Found, *, may_follow: bool) -> str | None:
    if stat.S_ISDIR(item.mode):
        return item.name
    if not stat.S_ISLNK(item.mode) or not may_follow:
        return None
    try:
        name, info = tree.resolve(item.name)
    except (OSError, OutsideError):
        return None
    return name if stat.S_ISDIR(info.st_mode) else None
