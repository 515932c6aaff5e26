"""What the supervisor does now and then: a newer runner, an image, what crashes left behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.errors import SmidrError
from smidr_ci.forges.github.runners.bodies import Body
from smidr_ci.forges.github.runners.folder import RunnerFolder, folders_in
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.registration import Registrations
from smidr_ci.workspaces.folders import subdirectories

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)

_CURRENT_S: Final = 6 * 3600.0
"""How often GitHub's offer is looked at."""
_RETRY_S: Final = 300.0
_OPEN_LOCK: Final = threading.Lock()
_OPEN: Final[set[Path]] = set()
"""The directories that a supervisor of this process looks after."""


class Upkeep:
    """A thread that mostly sleeps; `changed` hears when something is there that was not."""

    def __init__(
        self,
        host: Callable[[], Host],
        installs: Installs,
        bodies: Mapping[str, Body],
        changed: Callable[[], None],
    ) -> None:
        self._host = host
        self._installs = installs
        self._bodies = bodies
        self._changed = changed
        self._root = Path()
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._seen: RunnerSettings | None = None
        self._thread = threading.Thread(target=self._run, name="runner-version", daemon=True)

    def look_after(self, root: Path) -> None:
        """From now on the directory of a registration's runners has somebody."""
        self._root = root
        with _OPEN_LOCK:
            _OPEN.add(root)

    def start(self) -> None:
        """Look for the first time, and from then on."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End, after so long at most."""
        self._ending.set()
        self._wake.set()
        self._installs.close()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with _OPEN_LOCK:
            _OPEN.discard(self._root)

    def look_now(self) -> None:
        """Something has changed."""
        self._wake.set()

    def follow_settings(self) -> None:
        """Look now if agent.yaml has changed since the last look."""
        if self._host().agent.github.runners != self._seen:
            self._wake.set()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            if self._ending.is_set():
                return
            is_well = False
            try:
                is_well = self._look()
            except SmidrError as error:
                log.warning("%s", error)
            except Exception:  # the next round may do better
                log.exception("looking after runners")
            self._changed()
            self._wake.wait(_CURRENT_S if is_well else _RETRY_S)

    def _look(self) -> bool:
        settings = self._seen = self._host().agent.github.runners
        self._installs.refresh()
        self._bodies[settings.mode].prepare()
        self._sweep()
        return not self._installs.problem

    def _sweep(self) -> None:
        """Take away what nobody else will: after crashes, and of registrations that are gone."""
        for body in self._bodies.values():
            body.sweep(self._root)
        home = self._host().home
        for root in subdirectories(self._root.parent):
            if root.name.startswith("."):
                continue  # the door
            with _OPEN_LOCK:
                is_looked_after = root in _OPEN or Registrations(home).is_there(root.name)
            for folder in folders_in(root):
                if not is_looked_after:
                    self._bury(folder)

    def _bury(self, folder: RunnerFolder) -> None:
        """Remove what a runner left that has ended; one with a job is left to end it."""
        note = folder.note()
        body = self._bodies.get(note.mode) if note is not None else None
        life = body.find(folder) if body is not None else None
        if body is not None and life is not None:
            has_ended = life.wait(0.0)
            life.close()
            if not has_ended:
                return
            body.clean(folder)
        try:
            folder.remove(folder.path.parent)
        except (OSError, SmidrError) as error:
            log.warning("can't remove what a runner left: %s", error)
