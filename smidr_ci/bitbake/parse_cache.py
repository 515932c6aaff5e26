"""Which files of a build directory let a fresh one at the same container path skip parsing.

`CACHE` (below TMPDIR; dunfell to langdale add folders for libc and machine) holds the recipes,
`PERSISTENT_DIR` (`TOPDIR/cache`) what BitBake knows of code, checksums and hashes. Read from
bb/cache.py, bb/codeparser.py, bb/checksum.py, bb/siggen.py and OE-Core's bitbake.conf.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["cache_files"]

_ROOTS: Final = ("tmp/cache", "cache")
_NAME: Final = re.compile(
    r"bb_cache(_[A-Za-z]+)?\.dat(\.[A-Za-z0-9._-]+)?"
    r"|bb_codeparser\.dat|local_file_checksum_cache\.dat|bb_unihashes\.dat"
    r"|bb_[a-z_]+\.(dat|sqlite3?)"
)
_MAX_DEPTH: Final = 4
_MAX_FILES: Final = 256


def cache_files(topdir: Path) -> list[Path]:
    """Paths relative to `topdir`, sorted; empty when there is no cache yet.

    Only regular files below real directories: recipes can write there, so a symlink is a
    stranger's and is left out.
    """
    found: list[Path] = []
    for root in _ROOTS:
        folder = topdir
        for part in Path(root).parts:
            folder /= part
            if folder.is_symlink():
                break
        else:
            found.extend(path.relative_to(topdir) for path in _regular_files(folder, _MAX_DEPTH))
    return sorted(found)[:_MAX_FILES]


def _regular_files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _regular_files(Path(entry.path), depth - 1)
        elif _NAME.fullmatch(entry.name) and _is_regular(entry):
            yield Path(entry.path)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return False
