"""A directory as a store: a disk or a share, which a web server of the operator may give out."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind
from smidr_ci.files import as_host_error, open_untrusted
from smidr_ci.stores.content import CHUNK_BYTES, CheckedReader, Content, sha256_of
from smidr_ci.stores.keys import check_key
from smidr_ci.stores.model import MissingObjectError, Readable, StoredObject, StoreError

__all__ = ["DirectoryStore"]

_PARTIAL: Final = ".smidr-partial"
"""Directory below the root for what is being written: no part of it is a key's."""
_STALE_S: Final = 86_400


class DirectoryStore:
    """Implements `ObjectStore`: a file per object, complete or not there."""

    def __init__(self, root: Path, public_url: str = "") -> None:
        """`public_url` is where readers find the directory; empty when they don't."""
        self._root = root
        self._public_url = public_url.rstrip("/")
        self._is_swept = False

    @property
    def where(self) -> str:
        """The directory."""
        return str(self._root)

    def put(self, key: str, content: Content, cancel: CancelToken | None = None) -> StoredObject:
        """Written beside its place, then renamed; an equal file stays."""
        target = self._place(key)
        stored = StoredObject(key, content.size_bytes, content.sha256)
        if self._is_equal(target, content):
            return stored
        with content.opened() as source:  # its trouble is not the store's
            reader = CheckedReader(source, content, cancel)
            partial = self._new_partial(target)
            try:
                self._fill(partial, reader)
                with self._words("can't store a file"):
                    os.replace(partial, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise
        return stored

    def head(self, key: str) -> StoredObject | None:
        """Size and time; the checksum would need a reading."""
        try:
            info = self._place(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._trouble("can't look at a file", error) from error
        return _described(key, info) if stat.S_ISREG(info.st_mode) else None

    def open(self, key: str) -> AbstractContextManager[Readable]:
        """The file itself."""
        try:
            return open_untrusted(self._place(key))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingObjectError(f"there is no {key}", where=self.where) from error
        except OSError as error:
            raise self._trouble("can't read a file", error) from error

    def url(self, key: str) -> str:
        """Below the public URL."""
        path = quote(check_key(key))
        return f"{self._public_url}/{path}" if self._public_url else ""

    def delete(self, key: str) -> None:
        """Remove the file, and the directories that it leaves empty."""
        place = self._place(key)
        try:
            place.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._trouble("can't delete a file", error) from error
        self._prune(place.parent)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Walks the directory; links and files of other makers are left out."""
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if not key.startswith(prefix) or not _is_key(key):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    info = path.lstat()
                    if stat.S_ISREG(info.st_mode):
                        yield _described(key, info)

    def close(self) -> None:
        """Nothing is kept open."""

    def _place(self, key: str) -> Path:
        return self._root / check_key(key)

    def _is_equal(self, target: Path, content: Content) -> bool:
        try:
            with open_untrusted(target) as file:
                if os.fstat(file.fileno()).st_size != content.size_bytes:
                    return False
                return sha256_of(file) == (content.size_bytes, content.sha256)
        except OSError:
            return False

    def _new_partial(self, target: Path) -> Path:
        with self._words("can't store a file"):
            # The root must be there: an unmounted disk must not become a directory of ours.
            if not self._root.is_dir():
                raise FileNotFoundError(2, "no such directory", str(self._root))
            partials = self._root / _PARTIAL
            partials.mkdir(mode=0o700, exist_ok=True)
            self._sweep(partials)
            missing = [part for part in target.parents if not part.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o755)  # for the web server, whatever the agent's umask
        return partials / secrets.token_hex(16)

    def _sweep(self, partials: Path) -> None:
        """Remove what crashes left; another host may be writing there too."""
        if self._is_swept:
            return
        self._is_swept = True
        limit = time.time() - _STALE_S
        for path in partials.iterdir():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < limit:
                    path.unlink()

    def _fill(self, partial: Path, reader: CheckedReader) -> None:
        with self._words("can't store a file"):
            out = partial.open("xb", buffering=0)
        with out:
            while chunk := reader.read(CHUNK_BYTES):
                with self._words("can't store a file"):
                    _write_all(out.fileno(), chunk)
            with self._words("can't store a file"):
                os.fchmod(out.fileno(), 0o644)
                os.fsync(out.fileno())

    def _prune(self, folder: Path) -> None:
        while folder != self._root and folder.is_relative_to(self._root):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @contextlib.contextmanager
    def _words(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._trouble(what, error) from error

    def _trouble(self, what: str, error: OSError) -> StoreError:
        said = as_host_error(error, what, self._root)
        if said.kind is FailureKind.DISK:
            hint = "Free some space there; old objects can go."
            return StoreError(said.message, where=self.where, hint=hint, kind=said.kind)
        hint = "The store's directory must exist, and be writable for the user of the agent."
        return StoreError(said.message, where=said.where, hint=hint)


def _described(key: str, info: os.stat_result) -> StoredObject:
    return StoredObject(key, info.st_size, modified=datetime.fromtimestamp(info.st_mtime, UTC))


def _is_key(text: str) -> bool:
    try:
        check_key(text)
    except ValueError:
        return False
    return True


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
