"""Snapshots of a local `path:` layer, named by their content.

A build works on the snapshot, so edits during a build don't disturb it; and since a file's time
follows from its content, a fresh checkout with the same content costs no re-parse.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from smidr_ci.cancel import CancelToken
from smidr_ci.errors import LayerError
from smidr_ci.files import write_atomic
from smidr_ci.layers.gitcmd import Git
from smidr_ci.layers.listing import LocalFile, list_files
from smidr_ci.layers.safefiles import open_below, read_link_below
from smidr_ci.layers.tree import StoredTree, TreeStore
from smidr_ci.layers.writing import TreeWriter, new_blob_hash, time_of_content

__all__ = ["LocalSource", "content_of", "snapshot"]

_CHUNK: Final = 1 << 18
_TRIES: Final = 3
# Two writes within one tick of the kernel's clock leave equal stamps; don't trust young ones.
_RACY_NS: Final = 2_000_000_000


class _ChangedError(Exception):
    """A file changed between hashing and copying."""


@dataclass(frozen=True)
class LocalSource:
    """A local directory to take a snapshot of; `name` is the layer's."""

    name: str
    root: Path
    without: tuple[Path, ...] = ()
    """Directories that are never part of it, such as smidr's own."""


def snapshot(
    source: LocalSource,
    store: TreeStore,
    git: Git,
    describe: Callable[[Path], Mapping[str, Any]],
    cancel: CancelToken,
) -> StoredTree:
    """The immutable tree with the directory's present content; a copy only when it is new.

    `describe(files)` gives the notes to keep with it. Raises `LayerError`, `CancelledError`.
    """
    repository = f"local-{source.name}"
    for _ in range(_TRIES):
        with suppress(_ChangedError):
            files = list_files(source.root, git, cancel, source.without)
            hashes = _hash_all(source, files, store, cancel)
            content = _content_id(files, hashes)

            def fill(
                tree: Path,
                files: list[LocalFile] = files,
                hashes: Mapping[str, str] = hashes,
                content: str = content,
            ) -> Mapping[str, Any]:
                base = time_of_content(content)
                writer = TreeWriter(tree, store.claim_time(base, content, cancel), store.shared)
                _copy(source.root, files, hashes, writer, cancel)
                return describe(tree)

            return store.make(repository, content[:40], fill, cancel)
    raise _restless(source)


def content_of(source: LocalSource, store: TreeStore, git: Git, cancel: CancelToken) -> str:
    """A hash of the directory's present content; raises `LayerError`, `CancelledError`."""
    for _ in range(_TRIES):
        with suppress(_ChangedError):
            files = list_files(source.root, git, cancel, source.without)
            return _content_id(files, _hash_all(source, files, store, cancel))
    raise _restless(source)


def _restless(source: LocalSource) -> LayerError:
    return LayerError(
        f"{source.root} keeps changing while it is read",
        hint="Stop the program that writes there, or leave its output out by .gitignore.",
    )


def _content_id(files: list[LocalFile], hashes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for file in files:
        mode = "120000" if file.is_link else "100755" if file.is_executable else "100644"
        digest.update(os.fsencode(f"{mode} {hashes[file.path]} {file.path}") + b"\0")
    return digest.hexdigest()


def _hash_all(
    source: LocalSource, files: list[LocalFile], store: TreeStore, cancel: CancelToken
) -> dict[str, str]:
    cache = _cache_path(source, store)
    known = _read_cache(cache)
    hashes: dict[str, str] = {}
    fresh: dict[str, list[Any]] = {}
    now = time.time_ns()
    for number, file in enumerate(files):
        if number % 256 == 0:
            cancel.raise_if_cancelled()
        stamp = [file.size, *file.stamp]
        entry = known.get(file.path)
        is_known = entry is not None and entry[1:] == stamp
        blob_id = entry[0] if entry is not None and is_known else _hash(source.root, file)
        hashes[file.path] = blob_id
        if max(file.stamp[2:]) + _RACY_NS < now:
            fresh[file.path] = [blob_id, *stamp]
    if fresh != known:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(fresh), mode=0o600)
    return hashes


def _cache_path(source: LocalSource, store: TreeStore) -> Path:
    place = hashlib.sha256(os.fsencode(source.root)).hexdigest()[:16]
    return store.root / f"local-{source.name}" / f".hashes-{place}.json"


def _read_cache(path: Path) -> dict[str, list[Any]]:
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _hash(root: Path, file: LocalFile) -> str:
    digest = new_blob_hash(_link_size(root, file) if file.is_link else file.size)
    for chunk in _content(root, file):
        digest.update(chunk)
    return digest.hexdigest()


def _link_size(root: Path, file: LocalFile) -> int:
    return sum(len(chunk) for chunk in _content(root, file))


def _content(root: Path, file: LocalFile) -> Iterator[bytes]:
    try:
        if file.is_link:
            yield os.fsencode(read_link_below(root, file.path))
            return
        with open_below(root, file.path) as opened:
            while chunk := opened.read(_CHUNK):
                yield chunk
    except FileNotFoundError:
        raise _ChangedError from None
    except OSError as error:
        raise LayerError(
            f"can't read {root / file.path}: {error.strerror}",
            hint="Mend its permissions, or leave it out by .gitignore.",
        ) from error


def _copy(
    root: Path,
    files: list[LocalFile],
    hashes: Mapping[str, str],
    writer: TreeWriter,
    cancel: CancelToken,
) -> None:
    for number, file in enumerate(files):
        if number % 256 == 0:
            cancel.raise_if_cancelled()
        blob_id = hashes[file.path]
        if file.is_link:
            writer.add_link(file.path, os.fsdecode(b"".join(_unchanged(root, file, blob_id))))
        else:
            writer.add_file(
                file.path,
                _unchanged(root, file, blob_id),
                blob_id=blob_id,
                is_executable=file.is_executable,
            )
    writer.finish()


def _unchanged(root: Path, file: LocalFile, blob_id: str) -> Iterator[bytes]:
    digest = new_blob_hash(_link_size(root, file) if file.is_link else file.size)
    for chunk in _content(root, file):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != blob_id:
        raise _ChangedError
