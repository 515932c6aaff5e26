"""How builds reach what other hosts shared: by a socket, whatever the store and the network are.

A login for the store never enters a builder, and a store that is away costs a build nothing but
what it would have found there.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from smidr_ci.bitbake.conf import Share
from smidr_ci.clock import Clock
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.containers.runtime import User
from smidr_ci.files import make_private_dir
from smidr_ci.trust import Trust

if TYPE_CHECKING:  # only who serves builds pays for HTTP
    from smidr_ci.sharing.reading import ShareReader

__all__ = [
    "AGENTS_READERS",
    "SHARE_MOUNT",
    "OwnReaders",
    "Readers",
    "relay_of",
    "share_in_conf",
    "without_proxy",
]

SHARE_MOUNT: Final = PurePosixPath("/smidr/share")
"""Directory with the socket, in containers of builds."""
_PORT: Final = 8773
_URL: Final = f"http://127.0.0.1:{_PORT}"
_SOCKET: Final = "socket"
AGENTS_READERS: Final = "agent"
"""Name of the directory of the agent's readers."""
_OWN: Final = "of-process-"
_PAUSE_S: Final = 0.2


def share_in_conf(settings: SharedCaches | None, trust: Trust, *, may_read: bool) -> Share | None:
    """What a build's conf says of it; it does not hang on whether the store answers now."""
    if settings is None or not may_read:
        return None
    packs = settings.repositories and settings.upload and trust is Trust.TRUSTED
    return Share(_URL, has_downloads=settings.downloads, packs_repositories=packs)


def relay_of(folder: Path | None) -> tuple[str, int] | None:
    """For the plan: the socket in the container, and the port that leads to it."""
    return None if folder is None else (str(SHARE_MOUNT / _SOCKET), _PORT)


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with loopback reached directly, when they name a proxy."""
    found = dict(environment)
    if not any(name.lower() in {"http_proxy", "all_proxy"} for name in environment):
        return found
    both = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    known = [part.strip() for part in (both[0] or both[1]).split(",") if part.strip()]
    if not {"*", "127.0.0.1"} & set(known):
        known.append("127.0.0.1")
    return {**found, "no_proxy": ",".join(known), "NO_PROXY": ",".join(known)}


class Readers:
    """Readers of one process, one for each kind of trust, below a directory of its own."""

    def __init__(self, settings: SharedCaches, root: Path, user: User, clock: Clock) -> None:
        self._settings = settings
        self._root = root
        self._user = user
        self._clock = clock
        self._lock = threading.Lock()
        self._readers: dict[Trust, ShareReader] = {}

    def folder(self, trust: Trust) -> Path:
        """The directory with the socket, which answers from now on; raises `SmidrError`."""
        with self._lock:
            if trust not in self._readers:
                self._readers[trust] = self._start(trust)
        return self._root / trust

    @property
    def problem(self) -> str:
        """Why the store gives nothing now; empty while it answers."""
        with self._lock:
            problems = [reader.problem for reader in self._readers.values()]
        return next(filter(None, problems), "")

    def stop(self) -> None:
        """End them; the directories stay for containers that go on."""
        with self._lock:
            readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.stop()

    def _start(self, trust: Trust) -> ShareReader:
        from smidr_ci.sharing.names import DOWNLOADS, SSTATE  # noqa: PLC0415 - with the others
        from smidr_ci.sharing.reading import ShareReader  # noqa: PLC0415 - not everybody shares
        from smidr_ci.stores.opening import open_store  # noqa: PLC0415 - same

        make_private_dir(self._root)
        # Whoever asks is a build that waits: a store that needs many tries is away.
        store = open_store(self._settings.read, pause=lambda _: self._clock.sleep(_PAUSE_S))
        reader = ShareReader(
            store,
            self._root / trust,
            caches=frozenset({SSTATE, DOWNLOADS} if self._settings.downloads else {SSTATE}),
            owner=(self._user.uid, self._user.gid),
            clock=self._clock,
        )
        reader.start()
        return reader


class OwnReaders(Readers):
    """Those of a build in the foreground: they and their directory end with its process."""

    def __init__(self, settings: SharedCaches, parent: Path, user: User, clock: Clock) -> None:
        super().__init__(settings, parent / f"{_OWN}{os.getpid()}", user, clock)
        self._parent = parent

    def _start(self, trust: Trust) -> ShareReader:
        self._sweep()
        return super()._start(trust)

    def stop(self) -> None:
        """End them, and remove the directory."""
        super().stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes left that were killed."""
        for folder in self._parent.glob(f"{_OWN}*"):
            pid = folder.name.removeprefix(_OWN)
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)
