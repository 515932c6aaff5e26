"""BitBake's parse cache, carried from one fresh workspace to the next.

BitBake trusts an entry while the recipe's and its includes' times are equal to those recorded, so
equal layer trees need no parsing. A cache that BitBake can't read costs a parse, never a build: it
stops at the first bad pickle and parses the rest (bb/cache.py, `load_cachefile`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.copying import copy_data, try_reflink
from smidr_ci.errors import InternalError
from smidr_ci.files import (
    MARKER_NAME,
    make_marked_dir,
    open_untrusted,
    remove_marked_tree,
    write_atomic,
)

__all__ = ["ParseCache", "cache_key"]

_log = logging.getLogger(__name__)

_LIST: Final = "files.json"
_FILES: Final = "files"
_CURRENT: Final = "current"
_VARIANT: Final = re.compile(r"\.[0-9a-f]{16,128}$", re.ASCII)
_UNUSED_AFTER: Final = timedelta(hours=1)
_TRIES: Final = 2

_Stamp = tuple[int, int]
"""Size in bytes and modification time in ns."""


def cache_key(
    *,
    bitbake: str,
    layers: Iterable[str],
    machine: str,
    distro: str,
    multiconfig: str = "",
    trust: str = "trusted",
) -> str:
    """A name for builds that may use each other's parse cache.

    `bitbake` is its directory and version, `layers` BBLAYERS in order. The files are pickles, code
    for whoever loads them: builds of different `trust` (and customers, if they don't trust each
    other) must not get the same key.
    """
    parts = [bitbake, list(layers), machine, distro, multiconfig, trust]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class ParseCache:
    """Saved cache files under `root`, `<key>/<generation>/`; needs no lock.

    A generation is never changed once it is `current`; readers that meet one on its way out just
    seed nothing. No method raises because of a bad or full cache directory: a build can do
    without, so that is logged instead.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock | None = None,
        keys: int = 32,
        variants: int = 8,
        size_bytes: int = 2 << 30,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Keep so many keys, so many `<name>.<hash>` of each name per key, so many bytes per key.

        `owner` (uid, gid) gets the seeded files when this process is root.
        """
        self._root = root.absolute()
        self._clock = clock or SystemClock()
        self._keys = keys
        self._variants = variants
        self._size_bytes = size_bytes
        self._owner = owner if os.geteuid() == 0 else None

    def seed(self, key: str, topdir: Path) -> int:
        """Copy the saved files into a fresh TOPDIR, times kept; return how many there were."""
        for _ in range(_TRIES):
            try:
                return self._seed(self._folder(key), topdir)
            except FileNotFoundError:
                continue  # nothing saved yet, or the generation was replaced meanwhile
            except (OSError, ValueError) as error:
                _log.warning("The parse cache %s can't be used: %s", key, error)
                return 0
        return 0

    def _seed(self, folder: Path, topdir: Path) -> int:
        placed: list[Path] = []
        try:
            generation = (folder / _CURRENT).resolve(strict=True)
            for name, stamp in _read_list(generation).items():
                target = topdir / name
                self._make_parents(topdir, target.parent)
                _copy(generation / _FILES / name, target, stamp, self._owner)
                placed.append(target)
        except BaseException:
            for path in placed:  # half a cache is worth nothing
                path.unlink(missing_ok=True)
            raise
        os.utime(folder)
        return len(placed)

    def save(self, key: str, topdir: Path, files: Iterable[str]) -> bool:
        """Store the files (paths relative to TOPDIR) if any of them changed; say whether it did.

        Only regular files are taken, never through a symlink.
        """
        try:
            folder = self._folder(key)
            stamps = self._choose(topdir, files)
            if not stamps or stamps == self._saved(folder):
                return False
            self._store(folder, topdir, stamps)
            self._prune(folder)
        except (OSError, ValueError) as error:
            _log.warning("The parse cache %s was not saved: %s", key, error)
            return False
        return True

    def _folder(self, key: str) -> Path:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}", key, re.ASCII) is None:
            raise InternalError(f"{key[:80]!r} can't name a parse cache")
        return self._root / key

    def _make_parents(self, topdir: Path, folder: Path) -> None:
        missing = []
        while folder != topdir and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir()
            if self._owner is not None:
                os.chown(path, *self._owner)

    def _saved(self, folder: Path) -> Mapping[str, _Stamp]:
        try:
            saved = _read_list((folder / _CURRENT).resolve(strict=True))
            os.utime(folder)
        except (OSError, ValueError):
            return {}
        return saved

    def _choose(self, topdir: Path, files: Iterable[str]) -> dict[str, _Stamp]:
        found = {name: stamp for name in set(files) if (stamp := _stamp_of(topdir, name))}
        newest_first = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))
        chosen: dict[str, _Stamp] = {}
        total, variants = 0, dict[str, int]()
        for name, stamp in newest_first:
            stem = _VARIANT.sub("", name)
            variants[stem] = variants.get(stem, 0) + 1
            if variants[stem] <= self._variants and total + stamp[0] <= self._size_bytes:
                chosen[name] = stamp
                total += stamp[0]
        return chosen

    def _store(self, folder: Path, topdir: Path, stamps: Mapping[str, _Stamp]) -> None:
        make_marked_dir(folder, 0o700)
        generation = Path(tempfile.mkdtemp(prefix="generation-", dir=folder))
        try:
            make_marked_dir(generation)
            for name, stamp in stamps.items():
                target = generation / _FILES / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(topdir / name, target, stamp, None)
            write_atomic(generation / _LIST, json.dumps(stamps, indent=1, sort_keys=True))
            link = generation / _CURRENT
            link.symlink_to(generation.name)
            link.replace(folder / _CURRENT)
        except BaseException:
            shutil.rmtree(generation, ignore_errors=True)
            raise
        os.utime(folder)

    def _prune(self, folder: Path) -> None:
        # What another process is still writing, or a reader still reads, is young.
        latest = (self._clock.now() - _UNUSED_AFTER).timestamp()
        current = os.readlink(folder / _CURRENT)
        for path in _marked(folder):
            if path.name != current and path.stat().st_mtime < latest:
                remove_marked_tree(path, self._root)
        by_use = sorted(_marked(self._root), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_use[self._keys :]:
            if path != folder:
                remove_marked_tree(path, self._root)


def _stamp_of(topdir: Path, name: str) -> _Stamp | None:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise InternalError(f"{name!r} is no path in a build directory")
    folder = topdir
    for part in parts[:-1]:
        folder /= part
        if folder.is_symlink():
            return None
    try:
        with open_untrusted(topdir / name) as file:
            info = os.fstat(file.fileno())
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _copy(source: Path, target: Path, stamp: _Stamp, owner: tuple[int, int] | None) -> None:
    with open_untrusted(source) as reader, open(target, "xb", buffering=0) as writer:
        try:
            if not try_reflink(reader.fileno(), writer.fileno()):
                copy_data(reader.fileno(), writer.fileno())
            if os.fstat(writer.fileno()).st_size != stamp[0]:
                raise ValueError(f"{source} has another size than was noted")
            os.utime(writer.fileno(), ns=(stamp[1], stamp[1]))
            if owner is not None:
                os.fchown(writer.fileno(), *owner)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _read_list(generation: Path) -> Mapping[str, _Stamp]:
    raw = json.loads((generation / _LIST).read_text(encoding="utf-8"))
    return {str(name): (int(size), int(mtime)) for name, (size, mtime) in raw.items()}


def _marked(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        found = [Path(item.path) for item in entries if item.is_dir(follow_symlinks=False)]
    return [path for path in found if (path / MARKER_NAME).is_file()]
