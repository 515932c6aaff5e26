"""What travels with an order: the project's local layers and its lockfile, as a tar.gz.

A client makes it, an agent unpacks it. The agent trusts nothing in it.
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import re
import secrets
import zlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from smidr_ci.api.limits import MAX_BUNDLE_BYTES
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.config.matching import shown
from smidr_ci.errors import InternalError, TooLargeError, UsageError
from smidr_ci.files import (
    MARKER_NAME,
    as_host_error,
    make_marked_dir,
    make_private_dir,
    remove_marked_tree,
)
from smidr_ci.home import Home
from smidr_ci.tarstream import Body, Entry, Kind, TarError, read_entries

__all__ = [
    "MAX_ENTRIES",
    "MAX_UNPACKED_BYTES",
    "leads_out",
    "receive_bundle",
    "sweep_incoming",
]

MAX_UNPACKED_BYTES: Final = 256 << 20
MAX_ENTRIES: Final = 50_000
_LOG: Final = logging.getLogger(__name__)
_MAX_HEADER_BYTES: Final = 128 << 20
_MAX_LINKS: Final = 5_000
_MAX_PATH: Final = 1024
_MAX_NAME: Final = 255
_MAX_DEPTH: Final = 64
_MAX_HOPS: Final = 16
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LEFT_OVER_AFTER: Final = timedelta(hours=1)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def receive_bundle(home: Home, data: bytes, *, max_entries: int = MAX_ENTRIES) -> Path:
    """Unpack a client's bundle into a fresh marked directory below `home.incoming`.

    No data at all is an empty bundle. Whatever is wrong is a `UsageError` that names the entry;
    then nothing is left.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise TooLargeError(
            f"the bundle has {len(data)} bytes; {MAX_BUNDLE_BYTES} are taken", hint=_WHERE_ELSE
        )
    try:
        make_private_dir(home.incoming)
        root = make_marked_dir(home.incoming / secrets.token_hex(8))
        try:
            os.chmod(root, 0o755)  # noqa: S103 - builds run as other users; `incoming` is private
            if data:
                _Unpacking(root, max_entries).run(data)
        except BaseException:
            with suppress(OSError):
                remove_marked_tree(root, home.incoming)
            raise
    except OSError as error:
        raise as_host_error(error, "can't unpack the bundle", home.incoming) from error
    return root


def sweep_incoming(home: Home, clock: Clock | None = None) -> None:
    """Remove what orders left behind that never became builds, after an hour."""
    oldest = (clock or SystemClock()).now().timestamp() - _LEFT_OVER_AFTER.total_seconds()
    with suppress(FileNotFoundError), os.scandir(home.incoming) as entries:
        for entry in entries:
            try:
                if entry.stat(follow_symlinks=False).st_mtime < oldest:
                    remove_marked_tree(Path(entry.path), home.incoming)
            except (OSError, InternalError) as error:
                _LOG.warning("can't remove what an order left: %s", error)


def leads_out(link: str, targets: Mapping[str, str]) -> bool:
    """Whether a symbolic link leads out of its tree, or around in circles.

    `targets` has every link of the tree with where it points; paths are relative to the tree.
    """
    here = link.split("/")[:-1]
    steps = deque(targets[link].split("/"))
    if targets[link].startswith("/"):
        return True
    for _ in range(_MAX_HOPS * _MAX_DEPTH):
        if not steps:
            return False
        step = steps.popleft()
        if step in {"", "."}:
            continue
        if step == "..":
            if not here:
                return True
            here.pop()
            continue
        onward = targets.get("/".join((*here, step)))
        if onward is None:
            here.append(step)
        elif onward.startswith("/"):
            return True
        else:
            steps.extendleft(reversed(onward.split("/")))
    return True


_WHERE_ELSE: Final = "Put big layers into git, or build output into .gitignore."


class _Unpacking:
    """One archive on its way into an empty directory that nobody else can reach."""

    def __init__(self, root: Path, max_entries: int) -> None:
        self._root = root
        self._max_entries = max_entries
        self._kinds: dict[str, Kind] = {MARKER_NAME: Kind.FILE}
        self._links: dict[str, str] = {}
        self._room = MAX_UNPACKED_BYTES

    def run(self, data: bytes) -> None:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unzipped:
            try:
                for entry, body in read_entries(_Bounded(unzipped)):
                    self._add(entry, body)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise UsageError(
                    "the bundle is no gzip archive, or damaged", hint="Send it again."
                ) from error
            except TarError as error:
                raise UsageError(f"the bundle {error}", hint="Send it again.") from error
        self._make_links()

    def _add(self, entry: Entry, body: Body) -> None:
        if entry.kind is Kind.OTHER:
            raise UsageError(
                f"the bundle's {shown(entry.name)} is {entry.what}, which is not taken"
            )
        path = _checked_path(entry)
        if path is None:
            return  # the directory itself, as `tar -C DIR .` writes it
        self._enter(path, entry)
        if entry.kind is Kind.FOLDER:
            return
        if entry.kind is Kind.LINK:
            self._links[path] = _checked_target(entry)
            if len(self._links) > _MAX_LINKS:
                raise TooLargeError(f"the bundle has more than {_MAX_LINKS} symbolic links")
            return
        if entry.mode & 0o6000:
            raise UsageError(f"the bundle's {shown(entry.name)} is setuid or setgid")
        self._write(path, entry, body)

    def _enter(self, path: str, entry: Entry) -> None:
        """Note the path; make the directories that lead to it, and itself when it is one."""
        parent = path.rpartition("/")[0]
        if parent and parent not in self._kinds:
            self._enter(parent, Entry(entry.name, Kind.FOLDER))
        if parent and self._kinds[parent] is not Kind.FOLDER:
            raise UsageError(
                f"the bundle's {shown(entry.name)} lies below a {self._kinds[parent].value}"
            )
        if path in self._kinds:
            if self._kinds[path] is entry.kind is Kind.FOLDER:
                return
            raise UsageError(
                f"the bundle has {shown(entry.name)} twice, or under a name of smidr's"
            )
        self._kinds[path] = entry.kind
        if len(self._kinds) > self._max_entries:
            raise TooLargeError(
                f"the bundle has more than {self._max_entries} entries", hint=_WHERE_ELSE
            )
        if entry.kind is Kind.FOLDER:
            place = self._root / path
            place.mkdir()
            place.chmod(0o755)

    def _write(self, path: str, entry: Entry, body: Body) -> None:
        self._room -= entry.size
        if self._room < 0:
            raise TooLargeError(
                f"the bundle's {shown(entry.name)} makes it bigger than "
                f"{MAX_UNPACKED_BYTES >> 20} MiB unpacked",
                hint=_WHERE_ELSE,
            )
        with os.fdopen(os.open(self._root / path, _WRITE, 0o600), "wb") as file:
            for chunk in body:
                file.write(chunk)
            os.fchmod(file.fileno(), 0o755 if entry.mode & 0o100 else 0o644)

    def _make_links(self) -> None:
        # At the end, so that nothing was ever written through one.
        for path, target in self._links.items():
            if leads_out(path, self._links):
                raise UsageError(
                    f"the bundle's link {shown(path)} leads out of it, to {shown(target)}"
                )
            os.symlink(target, self._root / path)


class _Bounded:
    """A stream that ends in an error when it is longer than any bundle can be."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = MAX_UNPACKED_BYTES + _MAX_HEADER_BYTES

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise TooLargeError("the bundle is far too big unpacked", hint=_WHERE_ELSE)
        return chunk


def _checked_path(entry: Entry) -> str | None:
    """The entry's path without `./` and a last slash; None for the bundle's own directory."""
    name = entry.name
    if name.startswith("/"):
        raise UsageError(f"the bundle's {shown(name)} is an absolute path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UsageError(f"the bundle's {shown(name)} leads out of it (..)")
    if _CONTROL.search(name):
        raise UsageError(f"the bundle's {shown(name)} has a control character in its name")
    if any(part.lower() == ".git" or part == MARKER_NAME for part in parts):
        raise UsageError(f"the bundle's {shown(name)} is not taken: no .git, nothing of smidr's")
    too_long = any(len(part.encode()) > _MAX_NAME for part in parts)
    if too_long or len(name.encode()) > _MAX_PATH or len(parts) > _MAX_DEPTH:
        raise UsageError(f"the bundle's {shown(name)} is too long or too deep")
    if not parts and entry.kind is not Kind.FOLDER:
        raise UsageError("the bundle has an entry without a name")
    return "/".join(parts) or None


def _checked_target(entry: Entry) -> str:
    target = entry.target
    is_odd = not target or _CONTROL.search(target) or len(target.encode()) > _MAX_PATH
    if is_odd or target.count("/") >= _MAX_DEPTH:
        raise UsageError(f"the bundle's link {shown(entry.name)} has no usable target")
    return target
