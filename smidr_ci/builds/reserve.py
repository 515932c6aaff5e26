"""Disk space held back while a build runs, so that its end can be recorded on a full disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from smidr_ci.files import as_host_error

__all__ = ["Reserve"]

_BYTES: Final = 1024 * 1024


class Reserve:
    """One megabyte in a file without a name: the kernel frees it when this process dies."""

    def __init__(self, folder: Path, size_bytes: int = _BYTES) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._held = contextlib.ExitStack()

    def take(self) -> None:
        """Hold the space; raises `HostError` (kind `disk`) when there is not even that much."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
            except OSError as error:
                raise as_host_error(error, "can't begin a build", self._folder) from error
            self._held = stack.pop_all()

    def give_back(self) -> None:
        """Free the space; a second call does nothing."""
        self._held.close()
