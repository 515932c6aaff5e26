"""Which sstate objects a build used: the hashes in the names of its stamps.

BitBake names a task's stamp `<recipe>.<task>.<unihash>`, restored tasks `<task>_setscene`
(bb/siggen.py, `stampfile`), and an object by the same hash. No object tells who used it.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.caches.walk import MAX_DEPTH, chunks_of, open_folder, opened
from smidr_ci.files import open_untrusted, write_atomic

__all__ = ["USES_FILE", "note_uses", "used_hashes"]

_STAMP: Final = re.compile(
    r"\.do_[a-z0-9_]{1,128}\.([0-9a-f]{32,128})(?:\.[\w.-]{1,128})?$", re.ASCII
)
USES_FILE: Final = "sstate-used.gz"
"""Beside the control directory of each build."""
_MOST: Final = 500_000
_LIMIT_BYTES: Final = 64 << 20


def note_uses(host: Host, build_id: str, tmp: Path) -> int:
    """Write down what a build used, before its TMPDIR goes; how many hashes there are.

    Never fails a build: what can't be read or written is not noted.
    """
    hashes = _in_stamps(tmp)
    folder = host.home.builds / build_id
    if hashes and folder.is_dir():
        text = "".join(f"{item}\n" for item in sorted(hashes))
        with contextlib.suppress(OSError):
            write_atomic(folder / USES_FILE, gzip.compress(text.encode(), 1))
    return len(hashes)


def used_hashes(host: Host, record: BuildRecord) -> frozenset[str] | None:
    """What the build used: as noted, or from its workspace if that was kept; else None."""
    try:
        with open_untrusted(host.home.builds / record.build_id / USES_FILE) as file:
            packed = file.read(_LIMIT_BYTES)
        return frozenset(zlib.decompress(packed, wbits=31).decode("ascii").split())
    except (OSError, ValueError, zlib.error):
        pass
    found = _in_stamps(Path(record.workspace) / "build" / "tmp") if record.workspace else None
    return frozenset(found) if found else None


def _in_stamps(tmp: Path) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError), opened(tmp, "stamps") as fd:
        for name in _names(fd, 0):
            match = _STAMP.search(name)
            if match is not None and len(found) < _MOST:
                found.add(match[1])
    return found


def _names(fd: int, depth: int) -> Iterator[str]:
    folders: list[str] = []
    for files, inner in chunks_of(fd):
        yield from (name for name, _ in files)
        folders += [name for name, _ in inner]
    for name in folders if depth < MAX_DEPTH else ():
        with contextlib.suppress(OSError):
            inner_fd = open_folder(name, fd)
            try:
                yield from _names(inner_fd, depth + 1)
            finally:
                os.close(inner_fd)
