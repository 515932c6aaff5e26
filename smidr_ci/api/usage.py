"""How much disk the caches take, measured seldom and in the background."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import SmidrError

__all__ = ["DirectorySizes", "du"]

_EVERY_S: Final = 600.0
_SHARE: Final = 50
"""A measurement that takes long comes seldom: at most a fiftieth of the time is spent on them."""
_LONGEST_S: Final = 3600.0
_log: Final = logging.getLogger(__name__)

Directories = Callable[[], Mapping[str, Path]]


class DirectorySizes:
    """Sizes in bytes by name; thread-safe. Nothing runs unless somebody asks."""

    def __init__(
        self,
        directories: Directories,
        measure: Callable[[Path], int | None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._directories = directories
        self._measure = measure or du
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_measuring = False
        self._due = float("-inf")
        self._sizes: dict[str, int] = {}

    def known(self) -> Mapping[str, int]:
        """What was measured last, perhaps nothing yet; begins anew when that was long ago."""
        with self._lock:
            if not self._is_measuring and self._clock.monotonic() >= self._due:
                self._is_measuring = True
                threading.Thread(target=self._run, name="cache-sizes", daemon=True).start()
            return dict(self._sizes)

    def _run(self) -> None:
        begun = self._clock.monotonic()
        sizes: dict[str, int] = {}
        try:
            for name, path in self._directories().items():
                size = self._measure(path)
                if size is not None:
                    sizes[name] = size
        except (SmidrError, OSError) as error:
            _log.warning("the caches can't be measured: %s", error)
        finally:
            now = self._clock.monotonic()
            with self._lock:
                self._sizes = sizes
                self._due = now + max(_EVERY_S, (now - begun) * _SHARE)
                self._is_measuring = False


def du(path: Path) -> int | None:
    """The disk that a directory takes, in bytes, hard links once; None when it can't be told."""
    if not path.is_dir():
        return None
    command = ("nice", "-n", "19", "du", "-s", "-x", "-B1", "--", str(path))
    with contextlib.suppress(OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            check=False,  # what it may not read it leaves out, and says so by its exit code
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST_S,
        )
        return int(done.stdout.split()[0])
    return None
