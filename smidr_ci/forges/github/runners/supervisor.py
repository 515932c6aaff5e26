"""The runners of one registration on this host: started, adopted after a restart, removed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.admission import admission_of
from smidr_ci.builds.host import Host
from smidr_ci.builds.slots import Waiting
from smidr_ci.errors import BusyError, ConflictError, HostError, SmidrError, UsageError
from smidr_ci.files import as_host_error
from smidr_ci.forges.github.runners.bodies import Body
from smidr_ci.forges.github.runners.exits import DEPRECATED
from smidr_ci.forges.github.runners.folder import Note, RunnerFolder, folders_in, is_runner_name
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.ports import LocalRunner, Room
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.surroundings import runners_directory, total_slots
from smidr_ci.forges.github.runners.upkeep import Upkeep
from smidr_ci.forges.github.runners.watch import Timing, Watch

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
_LEAVE_S: Final = 5.0
_RUNNER: Final = Waiting("runner", "runner", 0)


class Supervisor:
    """Implements `ports.Runners`; `bodies` by the words of `github.runners.mode`."""

    def __init__(
        self,
        registration: str,
        host: Callable[[], Host],
        installs: Installs,
        bodies: Mapping[str, Body],
        slots: Slots,
        timing: Timing | None = None,
    ) -> None:
        self._registration = registration
        self._host = host
        self._installs = installs
        self._bodies = bodies
        self._slots = slots
        self._timing = timing or Timing()
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}
        self._listeners: list[Callable[[], None]] = []
        self._closing = threading.Event()
        self._upkeep = Upkeep(host, installs, bodies, self._changed)

    # `ports.Runners`

    def open(self) -> None:
        """See `ports.Runners`."""
        self._upkeep.look_after(self._root)
        for folder in folders_in(self._root):
            self._adopt(folder)
        deadline = time.monotonic() + _LOOK_S
        for watch in list(self._watches.values()):
            watch.has_looked.wait(max(deadline - time.monotonic(), 0.0))
        self._upkeep.start()

    def close(self) -> None:
        """See `ports.Runners`."""
        self._closing.set()
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.leave()
        for watch in watches:
            watch.join(_LEAVE_S)
            if watch.view.is_alive:  # who adopts it counts it again
                self._slots.give_back()
        self._upkeep.stop(_LEAVE_S)

    def start(self, name: str, encoded_jit_config: str, labels: Sequence[str]) -> None:
        """See `ports.Runners`."""
        if not is_runner_name(name):
            raise UsageError(f"{name[:80]!r} can't be a runner's name")
        if name in self._watches:
            raise _known(name)
        settings = self._host().agent.github.runners
        archive = self._installs.current
        if archive is None:
            raise HostError(self._installs.problem or "there is no official runner yet")
        body = self._bodies[settings.mode]
        body.check()
        now = self._host().clock.now()
        note = Note(name, tuple(labels), now, settings.mode, archive.version, archive.sha256)
        watch = self._reserve(note, body)
        try:
            watch.folder.make(note)
        except OSError as error:
            self._let_go(watch)
            if isinstance(error, FileExistsError):
                raise _known(name) from error
            raise as_host_error(error, "can't make a runner's directory", self._root) from error
        try:
            life = body.start(watch.folder, archive, encoded_jit_config)
        except BaseException:
            body.clean(watch.folder)
            self._try_to_remove(watch.folder)
            self._let_go(watch)
            self._installs.doubt()
            self._upkeep.look_now()
            raise
        watch.begin(life)
        self._changed()

    def running(self) -> Mapping[str, LocalRunner]:
        """See `ports.Runners`."""
        with self._lock:
            return {
                name: watch.view for name, watch in self._watches.items() if not watch.is_stopping
            }

    def capacity(self) -> Room:
        """See `ports.Runners`."""
        self._upkeep.follow_settings()
        problem = self._why_none()
        if problem:
            return Room(0, problem)
        shortage = self._shortage()
        if shortage:
            return Room(0, shortage, is_short=True)
        free = max(self._total - self._slots.used, 0)
        return Room(free, "" if free else f"all {self._total} slots for runners are taken")

    def stop(self, name: str) -> None:
        """See `ports.Runners`."""
        with self._lock:
            watch = self._watches.get(name)
            if watch is None or watch.is_stopping:
                return
            watch.stop()
            is_alive = watch.view.is_alive
        if not is_alive:
            self._remove(watch)
        self._changed()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `ports.Runners`."""
        with self._lock:
            self._listeners.append(changed)

        def end() -> None:
            with self._lock:
                if changed in self._listeners:
                    self._listeners.remove(changed)

        return end

    @property
    def version(self) -> str:
        """See `ports.Runners`."""
        found = self._installs.current
        return found.version if found is not None else ""

    # Inside.

    @property
    def _root(self) -> Path:
        host = self._host()
        return runners_directory(host.agent.github.runners, host) / self._registration

    @property
    def _total(self) -> int:
        return total_slots(self._host())

    def _why_none(self) -> str:
        if self._closing.is_set():
            return "the agent ends"
        if self._installs.current is None:
            return self._installs.problem or "the official runner is not there yet"
        try:
            self._bodies[self._host().agent.github.runners.mode].check()
        except SmidrError as error:
            return f"{error.message} ({error.hint})" if error.hint else error.message
        return ""

    def _shortage(self) -> str:
        host = self._host()
        admission = admission_of(host.agent, host.home)
        return replace(admission, paths=(*admission.paths, self._root)).check(_RUNNER) or ""

    def _watch_of(self, folder: RunnerFolder, note: Note, body: Body) -> Watch:
        return Watch(
            folder,
            note,
            body,
            clock=self._host().clock,
            changed=self._changed,
            ended=self._over,
            timing=self._timing,
        )

    def _reserve(self, note: Note, body: Body) -> Watch:
        """Take the name and a slot; raises `ConflictError` or `BusyError`."""
        with self._lock:
            if self._closing.is_set():
                raise BusyError("the agent ends")
            if note.name in self._watches:
                raise _known(note.name)
            if not self._slots.take(self._total):
                raise BusyError(f"all {self._total} slots for runners are taken")
            watch = self._watch_of(RunnerFolder(self._root / note.name), note, body)
            self._watches[note.name] = watch
            return watch

    def _let_go(self, watch: Watch) -> None:
        """Undo `_reserve`."""
        with self._lock:
            self._watches.pop(watch.note.name, None)
        self._slots.give_back()

    def _adopt(self, folder: RunnerFolder) -> None:
        note = folder.note()
        body = self._bodies.get(note.mode) if note is not None else None
        if note is None or body is None or note.name != folder.path.name:
            log.warning("removing %s, of which nothing is known", folder.path)
            for each in self._bodies.values():
                life = each.find(folder)
                life.kill()
                life.close()
                each.clean(folder)
            self._try_to_remove(folder)
            return
        self._slots.force()
        watch = self._watch_of(folder, note, body)
        with self._lock:
            self._watches[note.name] = watch
        watch.begin(body.find(folder))

    def _over(self, watch: Watch) -> None:
        self._slots.give_back()
        if watch.view.exit_code == DEPRECATED:
            self._installs.refuse(watch.note.sha256, watch.note.version)
            self._upkeep.look_now()
        if watch.is_stopping:
            self._remove(watch)
        self._changed()

    def _remove(self, watch: Watch) -> None:
        self._try_to_remove(watch.folder)
        with self._lock:
            self._watches.pop(watch.note.name, None)

    def _try_to_remove(self, folder: RunnerFolder) -> None:
        try:
            folder.remove(folder.path.parent)  # `_root` is another after a change of settings
        except (OSError, SmidrError) as error:
            log.warning("can't remove what a runner left: %s", error)

    def _changed(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener()
            except Exception:  # a listener's fault is not the runner's
                log.exception("telling that a runner has changed")


def _known(name: str) -> ConflictError:
    return ConflictError(f"there is a runner {name} on this host already")
