"""Copies what the globs choose into the artifact store: all of it, with checksums, or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.artifacts.deploy import DeployTree, OutsideError
from smidr_ci.artifacts.globs import DEFAULT_GLOBS, Found, find
from smidr_ci.artifacts.model import MANIFEST_NAME, Artifact, LeftOut, Manifest, shown
from smidr_ci.artifacts.whole import appearing_whole
from smidr_ci.copying import copy_data, try_reflink
from smidr_ci.files import (
    MARKER_NAME,
    open_untrusted,
    write_atomic,
)

__all__ = ["collect"]

_RESERVED: Final = frozenset({MARKER_NAME, MANIFEST_NAME})
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.ENOTSUP})


def collect(
    deploy_dir: Path,
    globs: Sequence[str] | None,
    destination: Path,
    *,
    created: datetime,
    seen_as: PurePosixPath | None = None,
    may_link: bool = False,
    check: Callable[[], object] = lambda: None,
) -> Manifest:
    """Keep what the globs choose below DEPLOY_DIR (None: `DEFAULT_GLOBS`) in `destination`.

    `destination` is `<artifacts>/<customer>/<build-id>`; it appears whole, or replaces an earlier
    one whole. `seen_as` is DEPLOY_DIR in the container, for absolute links. `may_link` allows hard
    links: only when the workspace is removed afterwards. `check` is called before each file and
    may raise to cancel. No process may still write to DEPLOY_DIR.
    A link to a kept file stays a link, another one becomes a copy of its file. Raises `HostError`
    (kind `disk` when it is full); globs that chose nothing are in `Manifest.unmatched`.
    """
    with appearing_whole(destination) as fresh:
        manifest = Manifest(destination.name, destination.parent.name, created)
        if deploy_dir.is_dir():
            collector = _Collector(DeployTree(deploy_dir, seen_as), fresh, may_link, check)
            manifest = collector.run(manifest, globs)
        elif globs is not None:
            manifest = replace(manifest, unmatched=tuple(globs))
        write_atomic(fresh / MANIFEST_NAME, manifest.to_json())
    return manifest


@dataclass
class _Collector:
    tree: DeployTree
    target: Path
    may_link: bool
    check: Callable[[], object]
    kept: dict[str, Artifact] = field(default_factory=dict)
    refused: list[LeftOut] = field(default_factory=list)
    skipped: list[LeftOut] = field(default_factory=list)

    def run(self, manifest: Manifest, globs: Sequence[str] | None) -> Manifest:
        found, unmatched = dict[str, Found](), list[str]()
        for glob in DEFAULT_GLOBS if globs is None else globs:
            chosen = find(self.tree, glob)
            found.update((item.name, item) for item in chosen)
            if not chosen and globs is not None:
                unmatched.append(glob)
        names = [name for name in sorted(found) if self._has_good_name(name)]
        links = [name for name in names if stat.S_ISLNK(found[name].mode)]
        for name in names:
            if not stat.S_ISLNK(found[name].mode):
                self._keep(name, found[name].mode)
        for name in links:
            self._keep_link(name)
        return Manifest(
            manifest.build_id,
            manifest.customer,
            manifest.created,
            artifacts=tuple(self.kept[name] for name in sorted(self.kept)),
            unmatched=tuple(unmatched),
            refused=tuple(self.refused),
            skipped=tuple(self.skipped),
        )

    def _has_good_name(self, name: str) -> bool:
        if not name.isprintable():
            self._skip(name, "its name has control characters or is no UTF-8")
        elif name in _RESERVED:
            self._skip(name, "its name is reserved")
        else:
            return True
        return False

    def _keep(self, name: str, mode: int) -> None:
        if stat.S_ISDIR(mode):
            self._skip(name, "the directory can't be read")
        elif not stat.S_ISREG(mode):
            self._skip(name, "it is no file but a pipe, socket or device")
        else:
            self._keep_file(name, name)

    def _keep_link(self, name: str) -> None:
        try:
            real, info = self.tree.resolve(name)
        except OutsideError as error:
            reason = f"leads out of the deploy directory, to {shown(str(error))}"
            self.refused.append(LeftOut(shown(name), reason))
            return
        except OSError as error:
            self._skip(name, f"its target can't be found: {error.strerror}")
            return
        original = self.kept.get(real)
        if original is not None and original.link is None:
            self._keep_as_link(name, real, original)
        elif stat.S_ISREG(info.st_mode):
            self._keep_file(name, real)
        else:
            self._skip(name, "it leads to something that is no file")

    def _keep_as_link(self, name: str, real: str, original: Artifact) -> None:
        link = posixpath.relpath(real, posixpath.dirname(name) or ".")
        place = self._place(name)
        place.symlink_to(link)
        self.kept[name] = Artifact(
            name, original.size_bytes, original.sha256, original.is_executable, link
        )

    def _keep_file(self, name: str, real: str) -> None:
        self.check()
        source = Path(self.tree.path(real))
        place = self._place(name)
        try:
            reader = open_untrusted(source)
        except PermissionError:
            self._skip(name, "it can't be read")
            return
        with reader:
            info = os.fstat(reader.fileno())
            is_executable = bool(info.st_mode & 0o111)
            mode = 0o755 if is_executable else 0o644
            if self.may_link and _hard_link(source, place):
                checksum = hashlib.file_digest(reader, "sha256").hexdigest()
                _set_mode(place, mode)
            else:
                checksum = _copy(reader.fileno(), place, mode)
        self.kept[name] = Artifact(name, info.st_size, checksum, is_executable)

    def _place(self, name: str) -> Path:
        # Directories of names that were found hold no link, so neither does what is made here.
        place = self.target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _skip(self, name: str, reason: str) -> None:
        self.skipped.append(LeftOut(shown(name), reason))


def _hard_link(source: Path, place: Path) -> bool:
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _set_mode(place: Path, mode: int) -> None:
    # The content was checked through another handle: this must be the same plain file.
    with open_untrusted(place) as file:
        os.fchmod(file.fileno(), mode)


def _copy(source: int, place: Path, mode: int) -> str:
    checksum = hashlib.sha256()
    with open(place, "xb", buffering=0) as writer:
        if try_reflink(source, writer.fileno()):
            with os.fdopen(os.dup(source), "rb", buffering=0) as reader:
                reader.seek(0)
                checksum = hashlib.file_digest(reader, "sha256")
        else:
            copy_data(source, writer.fileno(), checksum.update)
        os.fchmod(writer.fileno(), mode)
    return checksum.hexdigest()
