"""Makes the bundle that goes with an order: what the config's relative paths need."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from smidr_ci.api.bundles import MAX_ENTRIES, MAX_UNPACKED_BYTES, leads_out
from smidr_ci.api.limits import MAX_BUNDLE_BYTES
from smidr_ci.cancel import CancelToken
from smidr_ci.config.base import KeyPath
from smidr_ci.config.loader import LoadedProject
from smidr_ci.config.matching import shown
from smidr_ci.errors import TooLargeError, UsageError
from smidr_ci.files import MARKER_NAME
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.listing import LocalFile, list_files
from smidr_ci.layers.lockfile import LOCK_NAME
from smidr_ci.layers.safefiles import open_below, read_link_below

__all__ = ["make_bundle"]

_NAMED: Final = 5


@dataclass(frozen=True)
class _Packed:
    """A file or link of the bundle: where it is now."""

    root: Path
    file: LocalFile

    def open(self) -> AbstractContextManager[IO[bytes]]:
        return open_below(self.root, self.file.path)


def make_bundle(project: LoadedProject, cancel: CancelToken | None = None) -> bytes:
    """A tar.gz with the local layers, `directories.source` and `smidr.lock`; empty for none.

    The same content gives the same bytes. Raises `UsageError` for what can't be sent,
    `TooLargeError` naming what is biggest, `LayerError` for a layer that can't be read.
    """
    folders: dict[str, Path] = {}
    for key, text in _needed(project):
        name = _inside(project, key, text)
        folders[name] = _folder(project, key, name)
    packed: dict[str, _Packed] = {}
    for name, root in folders.items():
        for file in list_files(root, Git(), cancel or CancelToken()):
            if MARKER_NAME not in file.path.split("/"):
                packed[f"{name}/{file.path}" if name != "." else file.path] = _Packed(root, file)
    packed |= _lockfile(project.directory)
    if not packed and not folders:
        return b""
    _check(packed)
    data = _archive(packed, folders)
    if len(data) > MAX_BUNDLE_BYTES:
        raise _too_large(f"{len(data) / 1e6:.0f} MB compressed", packed)
    return data


def _needed(project: LoadedProject) -> Iterator[tuple[KeyPath, str]]:
    for index, layer in enumerate(project.config.layers):
        if layer.path is not None:
            yield ("layers", index, "path"), layer.path
    source = project.config.directories.source
    if source is not None:
        yield ("directories", "source"), source


def _inside(project: LoadedProject, key: KeyPath, text: str) -> str:
    """The path below the config's directory, in its shortest form."""
    name = os.path.normpath(text)
    if text.startswith(("/", "~")) or name.split("/")[0] == "..":
        raise _elsewhere(project, key, text)
    return name


def _folder(project: LoadedProject, key: KeyPath, name: str) -> Path:
    base = project.directory.resolve()
    folder = (base / name).resolve()
    if not folder.is_relative_to(base):
        raise _elsewhere(project, key, name)
    if not folder.is_dir():
        raise UsageError(f"{name} is no directory", where=project.place(key))
    return folder


def _elsewhere(project: LoadedProject, key: KeyPath, text: str) -> UsageError:
    return UsageError(
        f"a client can't send {shown(text)}: it lies outside of the config's directory",
        where=project.place(key),
        hint="Put it into git, or below the directory of the config.",
    )


def _lockfile(directory: Path) -> dict[str, _Packed]:
    path = directory / LOCK_NAME
    if path.is_symlink() or not path.is_file():
        return {}
    file = LocalFile(LOCK_NAME, False, False, path.stat().st_size, (0, 0, 0, 0))
    return {LOCK_NAME: _Packed(directory, file)}


def _check(packed: Mapping[str, _Packed]) -> None:
    total = sum(one.file.size for one in packed.values())
    if total > MAX_UNPACKED_BYTES:
        raise _too_large(f"{total / 1e6:.0f} MB", packed)
    if len(packed) > MAX_ENTRIES:
        raise _too_large(f"{len(packed)} files", packed)
    targets = {
        name: read_link_below(one.root, one.file.path)
        for name, one in packed.items()
        if one.file.is_link
    }
    for name, target in targets.items():
        if leads_out(name, targets):
            raise UsageError(
                f"a client can't send the link {shown(name)}, which leads out, to {shown(target)}",
                hint="Put the layer into git, or replace the link.",
            )
    for name in packed:
        if not name.isprintable():
            raise UsageError(f"a client can't send {shown(name)}: it has an unusual name")


def _too_large(what: str, packed: Mapping[str, _Packed]) -> TooLargeError:
    by_size = sorted(packed, key=lambda name: packed[name].file.size, reverse=True)[:_NAMED]
    biggest = ", ".join(f"{name} ({packed[name].file.size / 1e6:.1f} MB)" for name in by_size)
    return TooLargeError(
        f"the local layers are too big to be sent: {what}; biggest: {biggest}",
        hint=f"A bundle has at most {MAX_BUNDLE_BYTES >> 20} MiB, {MAX_UNPACKED_BYTES >> 20} MiB "
        f"unpacked and {MAX_ENTRIES} files. Put big layers into git, output into .gitignore.",
    )


def _archive(packed: Mapping[str, _Packed], folders: Mapping[str, Path]) -> bytes:
    out = io.BytesIO()
    # No times, names or owners of this host: the same content gives the same bytes.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(folder for folder in folders if folder != "."):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for name in sorted(packed):
            _add(archive, name, packed[name])
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, one: _Packed) -> None:
    info = tarfile.TarInfo(name)
    try:
        if one.file.is_link:
            info.type, info.mode = tarfile.SYMTYPE, 0o777
            info.linkname = read_link_below(one.root, one.file.path)
            archive.addfile(info)
            return
        info.size = one.file.size
        info.mode = 0o755 if one.file.is_executable else 0o644
        with one.open() as content:
            archive.addfile(info, content)
    except OSError as error:
        raise UsageError(
            f"can't read {name}: {error.strerror or 'it changed meanwhile'}",
            where=str(one.root),
            hint="Mend its permissions, or leave it out by .gitignore.",
        ) from error
