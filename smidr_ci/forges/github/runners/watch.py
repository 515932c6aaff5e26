"""One runner under watch: a thread that sees its states, ends it when asked, and cleans up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.forges.github.runners.bodies import Body, Life
from smidr_ci.forges.github.runners.exits import describe
from smidr_ci.forges.github.runners.folder import Note, RunnerFolder
from smidr_ci.forges.github.runners.observation import Observation, has_worker, observe
from smidr_ci.forges.github.runners.ports import LocalRunner, RunnerState
from smidr_ci.text import printable

__all__ = ["Timing", "Watch"]

log = logging.getLogger(__name__)

_LAST_LINES: Final = 5
_LONGEST_LINE: Final = 300


@dataclass(frozen=True)
class Timing:
    """In seconds."""

    tick_s: float = 1.0
    """Between two looks at a runner."""
    over_s: float = 300.0
    """How long a runner may stay after its job."""
    stop_s: float = 120.0
    """How long it may take to end in good order."""


class Watch:
    """Made with a runner that was started; `changed` hears of each change, `ended` of the end.

    `view` is the newest; any thread may read it.
    """

    def __init__(
        self,
        folder: RunnerFolder,
        note: Note,
        body: Body,
        *,
        clock: Clock,
        changed: Callable[[], None],
        ended: Callable[[Watch], None],
        timing: Timing,
    ) -> None:
        self.folder = folder
        self.note = note
        self.body = body
        self.life: Life | None = None
        self.view = LocalRunner(
            note.name, RunnerState.STARTING, note.started_at, clock.now(), note.labels
        )
        self.is_stopping = folder.stopping.exists()
        self.has_looked = threading.Event()
        self._clock = clock
        self._changed = changed
        self._ended = ended
        self._timing = timing
        self._leave = threading.Event()
        self._interrupted_at: float | None = None
        self._over_at: float | None = None
        self._thread: threading.Thread | None = None

    def begin(self, life: Life) -> None:
        """Watch it, in a thread of its own."""
        self.life = life
        self._thread = threading.Thread(
            target=self._run, args=(life,), name=f"runner-{self.note.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Have it end; `ended` is called then."""
        self.is_stopping = True
        try:
            self.folder.stopping.touch(mode=0o600)
        except OSError as error:
            log.warning("can't note that %s shall end: %s", self.note.name, error)

    def leave(self) -> None:
        """Watch no more; the runner goes on."""
        self._leave.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread, after `leave` or the end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _run(self, life: Life) -> None:
        try:
            has_ended = life.wait(0.0)
            while not has_ended and not self._leave.is_set():
                self._look(life)
                self.has_looked.set()
                self._end_when_due(life)
                has_ended = life.wait(self._timing.tick_s)
            if has_ended:
                self._finish(life)
        except Exception:  # its slot must not stay taken for a fault of ours
            log.exception("watching the runner %s", self.note.name)
            self._set(state=RunnerState.EXITED)
            self._ended(self)
        finally:
            self.has_looked.set()
            life.close()

    def _look(self, life: Life) -> None:
        seen = observe(life.output(), has_worker=has_worker(self.folder.root))
        state = self.view.state
        if seen.had_job:
            state = RunnerState.BUSY
        elif seen.is_listening and state is RunnerState.STARTING:
            state = RunnerState.IDLE
        self._learn(seen, state)
        if seen.is_over and self._over_at is None:
            self._over_at = self._clock.monotonic()

    def _learn(self, seen: Observation, state: RunnerState) -> None:
        had_job = self.view.had_job or seen.had_job
        self._set(state=state, had_job=had_job, job=self.view.job or seen.job)

    def _tell_last_words(self, output: str) -> None:
        """Its log goes with its directory, and may be all that tells what is wrong."""
        for line in [line for line in output.splitlines() if line.strip()][-_LAST_LINES:]:
            log.warning("%s said: %s", self.note.name, printable(line)[:_LONGEST_LINE])

    def _set(
        self,
        *,
        state: RunnerState,
        had_job: bool | None = None,
        job: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        old = self.view
        new = replace(
            old,
            state=state,
            had_job=old.had_job if had_job is None else had_job,
            job=old.job if job is None else job,
            exit_code=exit_code,
        )
        if new != old:
            if state is not old.state:
                new = replace(new, changed_at=self._clock.now())
            self.view = new
            self._changed()

    def _end_when_due(self, life: Life) -> None:
        now = self._clock.monotonic()
        is_over = self._over_at is not None and now - self._over_at >= self._timing.over_s
        if not self.is_stopping and not is_over:
            return
        if self._interrupted_at is None:
            if is_over:
                log.warning("the runner %s stays after its job; ending it", self.note.name)
            self._interrupted_at = now
            life.interrupt()
        elif now - self._interrupted_at >= self._timing.stop_s:
            log.warning("the runner %s does not end; killing it", self.note.name)
            life.kill()

    def _finish(self, life: Life) -> None:
        code, output = life.exit_code(), life.output()
        seen = observe(output, has_worker=has_worker(self.folder.root))
        try:
            self.body.clean(self.folder)
        except (OSError, SmidrError) as error:
            log.warning("after the runner %s: %s", self.note.name, error)
        had_job = self.view.had_job or seen.had_job
        log.info("the runner %s has ended: %s", self.note.name, describe(code))
        if not had_job and not self.is_stopping and code != 0:
            self._tell_last_words(output)
        job = self.view.job or seen.job
        self._set(state=RunnerState.EXITED, had_job=had_job, job=job, exit_code=code)
        self._ended(self)
