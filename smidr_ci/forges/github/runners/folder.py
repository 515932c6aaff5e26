"""What is on disk of one runner: a note without secrets, its log, its private root and home.

`RUNNERS/<registration>/<name>/`: `note.json` and the log belong to the agent, `root` and `home` to
the user that the job runs as.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import (
    DELETING_PREFIX,
    make_marked_dir,
    open_untrusted,
    set_aside_marked_tree,
    write_atomic,
)
from smidr_ci.workspaces.removal import delete_detached

__all__ = ["Note", "RunnerFolder", "folders_in", "is_runner_name", "read_json"]

_MOST_NOTE: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Note:
    """What must be known of a runner after the agent's death; nothing in it is secret."""

    name: str
    labels: tuple[str, ...]
    started_at: datetime
    mode: str
    """As in `github.runners.mode` when it was started."""
    version: str = ""
    sha256: str = ""
    """Of the archive that it was unpacked from."""


@dataclass(frozen=True)
class RunnerFolder:
    """The directory of one runner."""

    path: Path

    @property
    def root(self) -> Path:
        """The runner's own root: programs, `_work`, `_diag`."""
        return self.path / "root"

    @property
    def home(self) -> Path:
        """HOME of the job, so that nothing that it leaves there reaches the next."""
        return self.path / "home"

    @property
    def log(self) -> Path:
        """What the runner prints."""
        return self.path / "runner.log"

    @property
    def exit(self) -> Path:
        """How it ended, written by its keeper."""
        return self.path / "exit.json"

    @property
    def keeper(self) -> Path:
        """Which process keeps it."""
        return self.path / "keeper.json"

    @property
    def stopping(self) -> Path:
        """There once somebody wanted its end: the next agent goes on with that."""
        return self.path / "stopping"

    def make(self, note: Note) -> None:
        """Make it with its note; raises `OSError`, FileExistsError when it is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir()
        for place in (self.path.parent, self.path):  # jobs may be another user
            place.chmod(0o711)
        make_marked_dir(self.path)
        started = note.started_at.astimezone(UTC).isoformat()
        value = {**vars(note), "labels": list(note.labels), "started_at": started}
        write_atomic(self.path / "note.json", json.dumps(value), mode=0o600)

    def note(self) -> Note | None:
        """What was noted; None when that can't be read."""
        found = read_json(self.path / "note.json")
        try:
            return Note(
                name=str(found["name"]),
                labels=tuple(str(label) for label in found["labels"]),
                started_at=datetime.fromisoformat(found["started_at"]).astimezone(UTC),
                mode=str(found["mode"]),
                version=str(found.get("version", "")),
                sha256=str(found.get("sha256", "")),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def remove(self, root: Path) -> None:
        """Take it away: renamed at once, deleted in the background; missing is fine.

        Raises `OSError` and `InternalError`.
        """
        with contextlib.suppress(OSError):
            self.path.rmdir()  # a crash came before the marker
        doomed = set_aside_marked_tree(self.path, root)
        if doomed is not None:
            delete_detached(doomed)


def folders_in(root: Path) -> Iterator[RunnerFolder]:
    """The runners' directories of one registration; what a removal left goes on going."""
    try:
        with os.scandir(root) as entries:
            found = sorted(item.name for item in entries if item.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in found:
        if name.startswith(DELETING_PREFIX):
            delete_detached(root / name)
        elif is_runner_name(name):
            yield RunnerFolder(root / name)


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object that a job may have written; empty for anything else."""
    with contextlib.suppress(OSError, ValueError, RecursionError), open_untrusted(path) as file:
        found = json.loads(file.read(_MOST_NOTE))
        if isinstance(found, dict):
            return found
    return {}


def is_runner_name(name: str) -> bool:
    """Whether it can be a runner's name, and so the name of its directory."""
    return _NAME.fullmatch(name) is not None
