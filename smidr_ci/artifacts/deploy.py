"""The deploy directory as a build left it: a stranger's tree, never left by following a link."""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["DeployTree", "OutsideError"]

_MAX_HOPS: Final = 40  # as the kernel's own limit


class OutsideError(Exception):
    """A link leads out of the deploy directory; the text is where to."""


class DeployTree:
    """Looks at paths below `root`; names are relative, with `/`.

    `seen_as` is where the container saw it: absolute links that begin with that are inside.
    Nothing may change the tree meanwhile.
    """

    def __init__(self, root: Path, seen_as: PurePosixPath | None = None) -> None:
        self.root = root.resolve()
        self._aliases = [str(self.root), *([str(seen_as)] if seen_as else [])]

    def path(self, name: str) -> str:
        """The host's path of a name."""
        return os.path.join(self.root, name) if name else os.fspath(self.root)

    def resolve(self, name: str) -> tuple[str, os.stat_result]:
        """The name without any link in it, and what is there.

        Raises `OutsideError`, and `OSError` for what is missing or goes round in circles.
        """
        waiting, real, hops = deque(name.split("/")), list[str](), 0
        info = os.lstat(self.root)
        while waiting:
            part = waiting.popleft()
            if part in {"", "."}:
                continue
            if part == "..":
                if not real:
                    raise OutsideError("..")
                real.pop()
                info = os.lstat(self.path("/".join(real)))
                continue
            here = self.path("/".join([*real, part]))
            info = os.lstat(here)
            if not stat.S_ISLNK(info.st_mode):
                real.append(part)
                continue
            hops += 1
            if hops > _MAX_HOPS:
                raise OSError(40, "too many levels of symbolic links", here)
            target = os.readlink(here)
            if target.startswith("/"):
                real, target = [], self._inside(target)
            waiting.extendleft(reversed(target.split("/")))
        return "/".join(real), info

    def _inside(self, target: str) -> str:
        for alias in self._aliases:
            if target == alias or target.startswith(f"{alias}/"):
                return target[len(alias) :]
        raise OutsideError(target)
