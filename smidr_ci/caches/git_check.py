"""Whether a mirror of a git repository has all that its refs lead to.

Builds can write to the mirror, and git runs what a repository's own config tells it to: so git gets
an empty repository of ours, with the mirror's objects and a copy of its refs.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, open_folder, opened
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import HostError
from smidr_ci.layers.credentials import ChildAccess
from smidr_ci.layers.failures import GitError, GitFailure
from smidr_ci.layers.gitcmd import Git

__all__ = ["mirror_fault"]

_REF: Final = re.compile(r"refs/[A-Za-z0-9._@+/=#,~-]{1,400}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_LIMIT_BYTES: Final = 64 << 20
_TIMEOUT_S: Final = 3600.0


def mirror_fault(mirror: Path, cancel: CancelToken) -> str | None:
    """What is wrong with a bare repository; empty when it is sound, None for no repository.

    `git fsck --connectivity-only`. Raises `OSError`, `HostError` without git, `CancelledError`.
    """
    if not (mirror / "objects").is_dir() or not (mirror / "HEAD").is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="smidr-fsck-") as name:
        own = Path(name)
        refs = _make_own(own, mirror)
        if not refs:
            return ""
        access = ChildAccess(
            environment={"GIT_DIR": name, "GIT_OBJECT_DIRECTORY": str(mirror / "objects")}
        )
        try:
            Git(timeout_s=_TIMEOUT_S).run(
                ["fsck", "--connectivity-only", "--no-dangling", "--no-reflogs", "--no-progress"],
                cancel=cancel,
                access=access,
            )
        except GitError as error:
            if error.failure in {GitFailure.DISK, GitFailure.NETWORK}:  # or it took too long
                raise HostError(f"can't check {mirror.name}: {error.line}") from error
            return f"git fsck: {error.line}"
    return ""


def _make_own(own: Path, mirror: Path) -> int:
    refs: dict[str, str] = {}
    with opened(mirror) as fd:
        for line in _read(fd, "packed-refs").splitlines():
            commit, _, name = line.partition(" ")
            _add(refs, name, commit)
        with contextlib.suppress(OSError), opened(mirror, "refs") as inner:
            for name, commit in _loose(inner, "refs", 0):
                _add(refs, name, commit)
        shallow = [line for line in _read(fd, "shallow").splitlines() if _ID.fullmatch(line)]
    is_sha256 = any(len(commit) == 64 for commit in refs.values())
    for folder in ("refs", "objects"):
        (own / folder).mkdir()
    (own / "HEAD").write_text("ref: refs/heads/smidr-none\n")
    extension = "[extensions]\n\tobjectFormat = sha256\n" if is_sha256 else ""
    version = 1 if is_sha256 else 0
    (own / "config").write_text(
        f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}"
    )
    (own / "packed-refs").write_text(
        "".join(f"{commit} {name}\n" for name, commit in sorted(refs.items()))
    )
    if shallow:
        (own / "shallow").write_text("".join(f"{line}\n" for line in shallow))
    return len(refs)


def _add(refs: dict[str, str], name: str, commit: str) -> None:
    if _REF.fullmatch(name) and _ID.fullmatch(commit):
        refs[name] = commit


def _loose(fd: int, above: str, depth: int) -> Iterator[tuple[str, str]]:
    for files, folders in chunks_of(fd):
        for name, _ in files:
            yield f"{above}/{name}", _read(fd, name).strip()
        for name, _ in folders if depth < MAX_DEPTH else ():
            with contextlib.suppress(OSError):
                inner = open_folder(name, fd)
                try:
                    yield from _loose(inner, f"{above}/{name}", depth + 1)
                finally:
                    os.close(inner)


def _read(folder: int, name: str) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LIMIT_BYTES).decode("ascii", errors="replace")
