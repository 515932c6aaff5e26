"""Turns one commit of a mirror into files, byte for byte as they are stored in git.

Blobs come from `git cat-file`, not from `git checkout` or `git archive`: so no attribute of the
repository (filter, eol, ident, export-subst, export-ignore) can run a program or change a file,
and every blob's hash is checked on its way.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.layers.failures import GitError, GitFailure
from smidr_ci.layers.gitcmd import Git, end
from smidr_ci.layers.writing import MAX_PATH, TreeWriter, new_blob_hash

__all__ = ["CommitFacts", "read_commit", "write_commit"]

_CHUNK: Final = 1 << 18
_EARLIEST: Final = 315_532_800
_LATEST: Final = 4_102_444_800
_LISTING_LIMIT: Final = 128 << 20


@dataclass(frozen=True)
class CommitFacts:
    """What a commit says: its tree's id, and its time kept between 1980 and 2100."""

    tree: str
    time: int


@dataclass(frozen=True)
class _Entry:
    mode: str
    blob_id: str
    path: str


def read_commit(git: Git, mirror: Path, commit: str, cancel: CancelToken) -> CommitFacts:
    """Tree and committer's time of the commit; raises `GitError`."""
    raw = git.run([f"--git-dir={mirror}", "cat-file", "commit", commit], cancel=cancel)
    tree, time = "", _EARLIEST
    for line in raw.decode(errors="replace").split("\n\n", 1)[0].splitlines():
        word, _, rest = line.partition(" ")
        if word == "tree":
            tree = rest
        elif word == "committer":
            seconds = rest.rpartition("> ")[2].split(" ")[0]
            time = int(seconds) if seconds.isdecimal() and len(seconds) < 12 else _EARLIEST
    return CommitFacts(tree, min(max(time, _EARLIEST), _LATEST))


def write_commit(
    git: Git, mirror: Path, commit: str, writer: TreeWriter, cancel: CancelToken
) -> list[str]:
    """Write all files of the commit; returns the paths of its submodules, which stay empty.

    Raises `GitError` (kind CORRUPT for a damaged mirror), `LayerError`, `OSError`.
    """
    entries = _list(git, mirror, commit, cancel)
    blobs = [entry for entry in entries if entry.mode != "160000"]
    _write_blobs(git, mirror, blobs, writer, cancel)
    submodules = [entry.path for entry in entries if entry.mode == "160000"]
    for path in submodules:
        writer.add_folder(path)
    writer.finish()
    return submodules


def _list(git: Git, mirror: Path, commit: str, cancel: CancelToken) -> list[_Entry]:
    raw = git.run(
        [f"--git-dir={mirror}", "ls-tree", "-r", "-z", "--full-tree", commit],
        cancel=cancel,
        output_limit=_LISTING_LIMIT,
    )
    entries = []
    for line in raw.split(b"\0")[:-1]:
        facts, _, name = line.partition(b"\t")
        mode, _, blob_id = facts.decode("ascii").split(" ")
        entries.append(_Entry(mode, blob_id, os.fsdecode(name)))
    return entries


def _write_blobs(
    git: Git, mirror: Path, entries: list[_Entry], writer: TreeWriter, cancel: CancelToken
) -> None:
    with tempfile.TemporaryFile() as wanted:
        wanted.writelines(b"%s\n" % entry.blob_id.encode() for entry in entries)
        wanted.seek(0)
        process = git.start(
            [f"--git-dir={mirror}", "cat-file", "--batch", "--buffer"], stdin=wanted
        )
        try:
            for number, entry in enumerate(entries):
                if number % 256 == 0:
                    cancel.raise_if_cancelled()
                _write_blob(_stdout(process), entry, writer)
        finally:
            end(process)


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise GitError(GitFailure.OTHER, "git cat-file has no output")
    return process.stdout


def _write_blob(source: IO[bytes], entry: _Entry, writer: TreeWriter) -> None:
    # `<id> blob <size>`, the content, a newline; `<id> missing` for what is not there.
    header = source.readline(256).split()
    if len(header) != 3 or header[1] != b"blob":
        raise GitError(GitFailure.CORRUPT, f"missing blob {entry.blob_id} of {entry.path}")
    content = _checked(source, entry, int(header[2]))
    if entry.mode == "120000":
        target = os.fsdecode(b"".join(content))
        writer.add_link(entry.path, target)
    else:
        writer.add_file(
            entry.path,
            content,
            blob_id=entry.blob_id,
            is_executable=entry.mode == "100755",
        )
    source.read(1)


def _checked(source: IO[bytes], entry: _Entry, size: int) -> Iterator[bytes]:
    if entry.mode == "120000" and not 0 < size <= MAX_PATH:
        raise GitError(GitFailure.OTHER, f"{entry.path} is a link to a name of {size} bytes")
    digest = new_blob_hash(size, "sha256" if len(entry.blob_id) == 64 else "sha1")
    left = size
    while left:
        chunk = source.read(min(left, _CHUNK))
        if not chunk:
            raise GitError(GitFailure.CORRUPT, f"{entry.path} ends too early")
        left -= len(chunk)
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != entry.blob_id:
        raise GitError(GitFailure.CORRUPT, f"{entry.path} is corrupt (wrong hash)")
