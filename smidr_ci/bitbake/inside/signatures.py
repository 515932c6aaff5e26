"""Signature files: those of the tasks that a build ran, and those that shared state keeps.

BitBake leaves `PN/PV.do_TASK.sigdata.HASH` below the stamps for every task that ran
(bb/build.py: make_stamp); OE-Core leaves `sstate:PN:...:HASH_TASK.*.siginfo` in SSTATE_DIR.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

__all__ = ["Signature", "Signatures", "births"]

_STAMP = re.compile(r".+\.(?P<task>do_\w+)\.sigdata\.(?P<hash>[0-9a-f]{32,128})")
_SUFFIX = ".siginfo"
_LAST_PART = re.compile(r"(?P<hash>[0-9a-f]{32,128})_(?P<task>\w+)\..+")
_MAX_EXECUTED = 50_000
_MAX_STATED = 2000


class Signature(NamedTuple):
    """One file with a task's signature."""

    recipe: str
    task: str
    hash: str
    path: str
    written: float
    """Unix time; of an object of shared state: when it was last used."""
    arch: Tuple[str, ...] = ()
    """What tells variants of a recipe apart, for files of shared state."""


Pair = Tuple[Signature, Signature]


class Signatures:
    """What is in a build directory and in its shared state directories.

    An untrusted build has one of its own, and reads `shared`.
    """

    def __init__(
        self,
        topdir: str,
        sstate: str,
        began: float,
        is_late: Callable[[], bool],
        shared: str = "",
    ) -> None:
        self._places = [sstate, shared] if shared else [sstate]
        self._began = began
        self.is_late = is_late
        self._ran = sorted(_executed(topdir), key=lambda item: item.written)
        self._by_hash: Dict[Tuple[str, str], Signature] = {
            (item.hash, item.task): item for item in self._ran
        }

    def changed(self) -> Tuple[List[Pair], List[Pair]]:
        """Before and now, of tasks that ran with a signature that no earlier build had.

        The first list is of tasks with an object, whose last use is known; in the second,
        "before" is the newest that was ever made, which need not be the last one used.
        """
        if not self._ran:
            return [], []
        kept = self._scan({item.recipe for item in self._ran})
        certain, guessed = (self._pairs(items, kept) for items in self._new(kept))
        return certain, guessed

    def _pairs(
        self, items: List[Signature], kept: Dict[Tuple[str, str], List[Signature]]
    ) -> List[Pair]:
        pairs = []
        for item in items:
            own = next((k for k in kept[item.recipe, item.task] if k.hash == item.hash), None)
            older = [
                known
                for known in kept[item.recipe, item.task]
                if known.hash != item.hash
                and known.written < self._began
                and (own is None or own.arch == known.arch)
            ]
            if older:
                pairs.append((max(older, key=lambda known: known.written), item))
        return pairs

    def find(self, digest: str, task: str) -> Optional[Signature]:
        """The file with this hash, of this build or kept in shared state."""
        if (digest, task) in self._by_hash:
            return self._by_hash[digest, task]
        for folder in self._folders_of(digest):
            for name in _names_in(folder):
                found = _kept(folder, name)
                if found is not None and (found.hash, found.task) == (digest, task):
                    return found
        return None

    def _new(
        self, kept: Dict[Tuple[str, str], List[Signature]]
    ) -> Tuple[List[Signature], List[Signature]]:
        """With and without an object, in the order of their run.

        A task may also run again with a signature that is known. BitBake runs one with an object
        only when that is missing. Without, when the file was made tells; its time of change does
        not, since OE-Core renews it.
        """
        new, unsure = [], []
        for item in self._ran:
            own = [k for k in kept.get((item.recipe, item.task), ()) if k.hash == item.hash]
            if own and os.path.exists(own[0].path[: -len(_SUFFIX)]):
                new.append(item)
            elif own:
                unsure.append((item, own[0].path))
        del unsure[_MAX_STATED:]
        born = births([path for _, path in unsure])
        made = [item for (item, _), when in zip(unsure, born) if when >= int(self._began)]
        return new, made

    def _scan(self, recipes: set[str]) -> Dict[Tuple[str, str], List[Signature]]:
        found: Dict[Tuple[str, str], List[Signature]] = {}
        for folder, names in self._folders():
            if self.is_late():
                return {}
            for name in names:
                if name.endswith(_SUFFIX) and name.split(":", 2)[1:2] and _recipe(name) in recipes:
                    item = _kept(folder, name)
                    if item is not None:
                        found.setdefault((item.recipe, item.task), []).append(item)
        return found

    def _folders(self) -> Iterator[Tuple[str, List[str]]]:
        for place in self._places:
            for folder, _, names in os.walk(place):
                yield folder, names

    def _folders_of(self, digest: str) -> List[str]:
        """Native recipes lie below a directory named for the host's distribution."""
        inner = os.path.join(digest[:2], digest[2:4])
        return [
            os.path.join(place, top, inner)
            for place in self._places
            for top in ("", *(name for name in _names_in(place) if len(name) > 2))
        ]


def _executed(topdir: str) -> List[Signature]:
    found: List[Signature] = []
    for tmp in sorted(name for name in _names_in(topdir) if name.startswith("tmp")):
        for folder, _, names in os.walk(os.path.join(topdir, tmp, "stamps")):
            for name in names:
                match = _STAMP.fullmatch(name)
                if match is not None and len(found) < _MAX_EXECUTED:
                    path = os.path.join(folder, name)
                    recipe = os.path.basename(folder)
                    found.append(Signature(recipe, match["task"], match["hash"], path, _used(path)))
    return found


def _recipe(name: str) -> str:
    return name.split(":", 2)[1]


def _kept(folder: str, name: str) -> Optional[Signature]:
    parts = name.split(":")
    match = _LAST_PART.fullmatch(parts[-1])
    if parts[0] != "sstate" or len(parts) < 4 or match is None or not name.endswith(_SUFFIX):
        return None
    path = os.path.join(folder, name)
    used = max(_used(path), _used(path[: -len(_SUFFIX)]))
    arch = (parts[2], *parts[5:6])
    return Signature(parts[1], "do_" + match["task"], match["hash"], path, used, arch)


def _used(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def births(paths: List[str]) -> List[int]:
    """When the files were made, in Unix time; 0 where the system does not say."""
    if not paths:
        return []
    done = subprocess.run(
        ["stat", "-c", "%W", "--", *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    lines = done.stdout.decode("ascii", "replace").splitlines()
    if len(lines) != len(paths):  # one is gone
        return [0] * len(paths)
    return [int(line) if line.isdigit() else 0 for line in lines]


def _names_in(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
