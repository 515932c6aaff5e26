"""Directories of artifacts that appear as a whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smidr_ci.files import as_host_error, make_marked_dir, remove_marked_tree

__all__ = ["COLLECTING_PREFIX", "appearing_whole"]

COLLECTING_PREFIX: Final = ".collecting-"


@contextmanager
def appearing_whole(destination: Path) -> Iterator[Path]:
    """A fresh directory to fill, which at the end of the block is, or replaces, `destination`.

    Nothing of it stays when the block raises. An `OSError` becomes `HostError`.
    """
    parent = destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Nobody else collects for the same build: what is there was left by a crash.
        prefix = f"{COLLECTING_PREFIX}{destination.name}."
        for half_done in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
            shutil.rmtree(half_done, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise as_host_error(error, "can't keep the artifacts", parent) from error
    try:
        make_marked_dir(fresh).chmod(0o755)
        yield fresh
        remove_marked_tree(destination, parent)
        fresh.rename(destination)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise as_host_error(error, "can't keep the artifacts", destination) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
