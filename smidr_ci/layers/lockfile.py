"""`smidr.lock`: every ref of `smidr.yaml` pinned to a commit. JSON, sorted, one entry per layer.

An entry counts only while its URL and ref are those of `smidr.yaml`. The file comes with the
project, so it is untrusted: bounded, and every value checked.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from smidr_ci.errors import LayerError
from smidr_ci.files import open_untrusted, write_atomic
from smidr_ci.layers.urls import RepositoryUrl, parse_url

__all__ = ["LOCK_NAME", "LockEntry", "Lockfile", "make_lock", "read_lock", "write_lock"]

LOCK_NAME: Final = "smidr.lock"
_VERSION: Final = 1
_MAX_BYTES: Final = 1 << 20
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF: Final = re.compile(r"HEAD|(branch|tag|commit):[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_MAKE_ANEW: Final = "Run `smidr lock` to write it anew."


@dataclass(frozen=True)
class LockEntry:
    """One layer; `ref` is what was asked for: `branch:NAME`, `tag:NAME`, `commit:ID` or `HEAD`."""

    name: str
    git: str
    ref: str
    commit: str


@dataclass(frozen=True)
class Lockfile:
    """The whole file."""

    entries: Mapping[str, LockEntry]
    """By the layer's name."""
    path: Path | None = None

    def commit_for(self, name: str, url: RepositoryUrl, ref: str) -> str | None:
        """The pinned commit, unless the entry is missing or stale."""
        entry = self.entries.get(name)
        if entry is None or entry.ref != ref or parse_url(entry.git).key != url.key:
            return None
        return entry.commit


def make_lock(entries: Iterable[LockEntry]) -> Lockfile:
    """A lock of these entries (see `LayerStore.resolve`)."""
    return Lockfile({entry.name: entry for entry in entries})


def write_lock(path: Path, lock: Lockfile) -> None:
    """Write the file, whole or not at all; the same lock gives the same bytes."""
    layers = {
        name: {"git": entry.git, "ref": entry.ref, "commit": entry.commit}
        for name, entry in sorted(lock.entries.items())
    }
    text = json.dumps({"smidr_lock": _VERSION, "layers": layers}, indent=2)
    write_atomic(path, text + "\n")


def read_lock(path: Path) -> Lockfile | None:
    """The lock at `path`, None when there is no file; raises `LayerError` with the line."""
    try:
        with open_untrusted(path) as file:
            raw = file.read(_MAX_BYTES + 1) or b""
    except FileNotFoundError:
        return None
    except OSError as error:
        what = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise LayerError(f"can't read the lockfile: {what}", where=str(path)) from error
    if len(raw) > _MAX_BYTES:
        raise LayerError("the lockfile is larger than 1 MiB", where=str(path), hint=_MAKE_ANEW)
    try:
        content = json.loads(raw, object_pairs_hook=_refuse_doubles)
    except json.JSONDecodeError as error:
        raise LayerError(
            f"the lockfile is damaged: {error.msg}",
            where=f"{path}:{error.lineno}:{error.colno}",
            hint=_MAKE_ANEW,
        ) from error
    except (ValueError, RecursionError) as error:
        raise LayerError(
            f"the lockfile is damaged: {error}", where=str(path), hint=_MAKE_ANEW
        ) from error
    return _check(content, path, raw.decode(errors="replace"))


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r} is there twice")
    return found


def _check(content: object, path: Path, text: str) -> Lockfile:
    if not isinstance(content, dict) or not isinstance(content.get("layers"), dict):
        raise LayerError("this is no lockfile of smidr's", where=str(path), hint=_MAKE_ANEW)
    if content.get("smidr_lock") != _VERSION:
        raise LayerError(
            f"the lockfile has format {content.get('smidr_lock')!r}, this smidr knows {_VERSION}",
            where=str(path),
            hint="Use a newer smidr, or run `smidr lock`.",
        )
    entries = {name: _entry(name, value, path, text) for name, value in content["layers"].items()}
    return Lockfile(entries, path)


def _entry(name: str, value: object, path: Path, text: str) -> LockEntry:
    wrong = "is not an object"
    if isinstance(value, dict):
        git, ref, commit = (value.get(key) for key in ("git", "ref", "commit"))
        if not isinstance(git, str) or not _is_url(git):
            wrong = "has no valid `git`"
        elif not isinstance(ref, str) or not _REF.fullmatch(ref):
            wrong = "has no valid `ref`"
        elif not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            wrong = "has no valid `commit` (40 or 64 hexadecimal digits)"
        else:
            return LockEntry(name, git, ref, commit)
    line = text[: max(text.find(json.dumps(name)), 0)].count("\n") + 1
    raise LayerError(
        f"the lockfile is damaged: layer {name[:80]!r} {wrong}",
        where=f"{path}:{line}",
        hint=_MAKE_ANEW,
    )


def _is_url(text: str) -> bool:
    try:
        parse_url(text)
    except LayerError:
        return False
    return True
