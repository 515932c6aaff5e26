"""Disk space held back while a build runs, so that its end can be recorded on a full disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from smidr_ci.files import as_host_error

__all__ = ["Reserve"]

_BYTES: Final = 1024 * 1024


class Reserve:
    """One megabyte in a file without a name: the kernel frees it when this process dies.

    Raises `HostError` (kind `disk`) when there is not even that much.
    """

    def __init__(self, folder: Path, size_bytes: int = _BYTES) -> None:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                raise as_host_error(error, "can't begin a build", folder) from error
            self._held = stack.pop_all()

    def give_back(self) -> None:
        """Free the space; a second call does nothing."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()
