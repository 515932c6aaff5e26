"""What the tasks of a build took, and which of them shared state spared: from its events.

Events and stamps are a stranger's: what makes no sense is passed over, and all is bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.bitbake.events import Event
from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, open_folder, opened

__all__ = ["RecipeWork", "restored_bytes", "tally"]

_SETSCENE: Final = "_setscene"
_MOST_RECIPES: Final = 20_000
_MOST_TASKS: Final = 100
_MOST_RUNNING: Final = 4096
_MOST_OBJECTS: Final = 50_000
_LONGEST_S: Final = 7 * 86_400.0
_RECIPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._@-]{0,127}", re.ASCII)
_TASK: Final = re.compile(r"do_[a-z0-9_]{1,64}", re.ASCII)
_STAMP: Final = re.compile(r"\.(do_[a-z0-9_]{1,64})_setscene\.([0-9a-f]{32,128})$", re.ASCII)
_OBJECT: Final = re.compile(r".*:([0-9a-f]{32,128})_([a-z0-9_]{1,64})\.(?:tgz|tar\.\w+)$", re.ASCII)


@dataclass
class RecipeWork:
    """What one recipe's tasks did in a build; seconds are of wall time, one task after the other.

    Tasks are named without `_setscene`.
    """

    ran: dict[str, float] = field(default_factory=dict)
    restored: dict[str, float] = field(default_factory=dict)
    """The seconds are those of the unpacking."""


def tally(events: Iterable[Event]) -> Mapping[str, RecipeWork]:
    """By recipe; tasks that failed count too, since they took their time."""
    found: dict[str, RecipeWork] = {}
    begun: dict[int, float] = {}
    for event in events:
        kind, pid, now = event["event"], event.get("pid"), event.get("t")
        if not isinstance(pid, int) or not isinstance(now, int | float):
            continue
        if kind == "task-started":
            if len(begun) < _MOST_RUNNING:
                begun[pid] = now
        elif kind in {"task-succeeded", "task-failed"} and pid in begun:
            seconds = min(max(0.0, now - begun.pop(pid)), _LONGEST_S)
            _count(found, event, seconds)
    return found


def _count(found: dict[str, RecipeWork], event: Event, seconds: float) -> None:
    recipe, task = event.get("pn"), event.get("task")
    if not isinstance(recipe, str) or not isinstance(task, str):
        return
    name = task.removesuffix(_SETSCENE)
    if not _RECIPE.fullmatch(recipe) or not _TASK.fullmatch(name):
        return
    if recipe not in found and len(found) >= _MOST_RECIPES:
        return
    work = found.setdefault(recipe, RecipeWork())
    is_restored = task != name
    if is_restored and event["event"] == "task-failed":
        return  # the task itself then runs
    times = work.restored if is_restored else work.ran
    if name in times or len(times) < _MOST_TASKS:
        times[name] = times.get(name, 0.0) + seconds


def restored_bytes(work: Mapping[str, RecipeWork], tmp: Path, sstate: Path) -> int:
    """Packed size of the objects that were restored, of those that lie in SSTATE_DIR.

    BitBake's stamps tell their hashes (bb/build.py, `stamp_internal`), and the names of objects
    are `sstate:PN:...:HASH_TASK.tar.zst` (OE-Core, sstate.bbclass). 0 for what can't be read.
    """
    wanted = {(recipe, task) for recipe, item in work.items() for task in item.restored}
    hashes: set[tuple[str, str]] = set()
    if wanted:
        with contextlib.suppress(OSError), opened(tmp, "stamps") as fd:
            for recipe, task, digest in _setscene_stamps(fd, "", 0):
                if (recipe, task) in wanted and len(hashes) < _MOST_OBJECTS:
                    hashes.add((digest, task.removeprefix("do_")))
    return sum(_sizes(sstate, hashes))


def _setscene_stamps(fd: int, folder: str, depth: int) -> Iterator[tuple[str, str, str]]:
    folders: list[str] = []
    for files, inner in chunks_of(fd):
        for name, _ in files:
            match = _STAMP.search(name)
            if match is not None:
                yield folder, match[1], match[2]
        folders += [name for name, _ in inner]
    for name in folders if depth < MAX_DEPTH else ():
        with contextlib.suppress(OSError):
            inner_fd = open_folder(name, fd)
            try:
                yield from _setscene_stamps(inner_fd, name, depth + 1)
            finally:
                os.close(inner_fd)


def _sizes(sstate: Path, hashes: set[tuple[str, str]]) -> Iterator[int]:
    """Native objects lie below a directory named for the host's distribution."""
    tops = ["", *(name for name in _names(sstate) if len(name) > 2)] if hashes else []
    for place in sorted({(digest[:2], digest[2:4]) for digest, _ in hashes}):
        for top in tops:
            with (
                contextlib.suppress(OSError),
                os.scandir(os.path.join(sstate, top, *place)) as entries,
            ):
                for entry in entries:
                    match = _OBJECT.fullmatch(entry.name)
                    if match is not None and (match[1], match[2]) in hashes:
                        yield entry.stat(follow_symlinks=False).st_size


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
