"""Start a build's container, follow its files, stop it when asked, and say how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.bitbake.events import EventReader
from smidr_ci.bitbake.plan import CONTROL_FILES, DriverResult, Plan
from smidr_ci.bitbake.progress import Progress
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.clock import Clock
from smidr_ci.containers.runtime import ContainerRuntime, ContainerSpec, Exit, Handle
from smidr_ci.engine import EngineRefusalError
from smidr_ci.errors import EngineError, SmidrError
from smidr_ci.files import open_untrusted

__all__ = ["Execution", "Executor", "read_result", "recall"]

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_PROGRESS_S: Final = 0.25
_SLICE_S: Final = 3600.0
_MARGIN_S: Final = 30.0
_RECONNECT_S: Final = 120.0
_RESULT_LIMIT: Final = 64 * 1024


@dataclass(frozen=True)
class Execution:
    """How the container ended, and what the driver and BitBake said."""

    exit: Exit
    result: DriverResult | None
    """None when the driver was killed before it could answer."""
    progress: Progress
    is_overdue: bool = False
    """It was killed since the driver did not keep the time limit."""


class Executor:
    """Runs the container of one build and watches it."""

    def __init__(self, runtime: ContainerRuntime, clock: Clock, cancel: CancelToken) -> None:
        self._runtime = runtime
        self._clock = clock
        self._cancel = cancel

    def run(
        self,
        spec: ContainerSpec,
        plan: Plan,
        control: Path,
        progressed: Callable[[Progress], None],
        ended: Callable[[Execution], None],
    ) -> Execution:
        """Start the container, follow it to its end and remove it.

        Raises `EngineError` when the engine can't start it or loses it.
        """
        self._cancel.raise_if_cancelled()
        (control / CONTROL_FILES["result"]).unlink(missing_ok=True)
        return self.rejoin(self._runtime.start(spec), plan, control, progressed, ended)

    def rejoin(
        self,
        handle: Handle,
        plan: Plan,
        control: Path,
        progressed: Callable[[Progress], None],
        ended: Callable[[Execution], None],
    ) -> Execution:
        """Follow a container to its end and remove it; `ended` hears of the end before that."""
        try:
            execution = self.follow(handle, plan, control, progressed)
            ended(execution)
        except BaseException:
            with contextlib.suppress(EngineError):
                self._runtime.remove(handle)
            raise
        try:
            self._remove(handle)
        except EngineError as error:
            # How it ended is known, and that is what the build comes to.
            _log.warning("the container of %s is left over: %s", handle.build_id, error)
        return execution

    def _remove(self, handle: Handle) -> None:
        """An engine that ended with the container, or ended it, is waited for."""
        deadline = self._clock.monotonic() + _RECONNECT_S
        while True:
            try:
                return self._runtime.remove(handle)
            except EngineRefusalError:
                raise
            except EngineError:
                if self._clock.monotonic() >= deadline:
                    raise
                self._clock.sleep(1.0)

    def follow(
        self, handle: Handle, plan: Plan, control: Path, progressed: Callable[[Progress], None]
    ) -> Execution:
        """Follow a container that runs, or has ended, to its end."""
        waiter = _Waiter(self._runtime, handle)
        ladder = _Ladder(self._runtime, handle, plan, self._clock, self._cancel)
        events = EventReader(control / CONTROL_FILES["events"])
        progress, shown = Progress(), 0.0
        while not waiter.ended.wait(_POLL_S):
            ladder.step()
            news = events.read()
            progress = progress.fold(news)
            now = self._clock.monotonic()
            if news and now - shown >= _PROGRESS_S:
                progressed(progress)
                shown = now
        progress = progress.fold(events.drain())
        progressed(progress)
        result = read_result(control / CONTROL_FILES["result"])
        return Execution(waiter.outcome(), result, progress, ladder.is_overdue)


def recall(ended: Exit, control: Path, *, is_overdue: bool) -> Execution:
    """The execution of a container that ended, and was removed, before this process began."""
    events = EventReader(control / CONTROL_FILES["events"])
    progress = Progress().fold(events.drain())
    return Execution(ended, read_result(control / CONTROL_FILES["result"]), progress, is_overdue)


class _Waiter:
    """Waits for the container's end in a thread, so that the follower may look at files."""

    def __init__(self, runtime: ContainerRuntime, handle: Handle) -> None:
        self.ended = threading.Event()
        self._exit: Exit | None = None
        self._error: SmidrError | None = None
        thread = threading.Thread(
            target=self._wait, args=(runtime, handle), name=f"wait-{handle.build_id}", daemon=True
        )
        thread.start()

    def _wait(self, runtime: ContainerRuntime, handle: Handle) -> None:
        try:
            while self._exit is None:
                self._exit = runtime.wait(handle, _SLICE_S)
        except SmidrError as error:
            self._error = error
        finally:
            self.ended.set()

    def outcome(self) -> Exit:
        if self._exit is not None:
            return self._exit
        if self._error is not None:
            raise self._error
        raise SmidrError("the wait for the container broke off")


class _Ladder:
    """Interrupt, then kill: by the cancel token, and when the driver misses its own deadlines."""

    def __init__(
        self,
        runtime: ContainerRuntime,
        handle: Handle,
        plan: Plan,
        clock: Clock,
        cancel: CancelToken,
    ) -> None:
        self._runtime, self._handle, self._clock, self._cancel = runtime, handle, clock, cancel
        self._grace_s = plan.interrupt_grace_s + plan.kill_grace_s + _MARGIN_S
        limit = plan.time_limit_s
        self._deadline = None if limit is None else clock.monotonic() + limit + self._grace_s
        self._interrupted = False
        self._killed = False
        self.is_overdue = False

    def step(self) -> None:
        if self._killed:
            return
        overdue = self._deadline is not None and self._clock.monotonic() > self._deadline
        if overdue or self._cancel.level >= CancelLevel.KILL:
            self._runtime.kill(self._handle)
            self._killed = True
            self.is_overdue = not self._cancel.is_cancelled
        elif self._cancel.is_cancelled and not self._interrupted:
            self._runtime.interrupt(self._handle)
            self._interrupted = True
            self._deadline = self._clock.monotonic() + self._grace_s


def read_result(path: Path) -> DriverResult | None:
    """The driver's answer; None when there is none that can be read."""
    try:
        with open_untrusted(path) as source:
            raw = json.loads(source.read(_RESULT_LIMIT) or b"")
    except (OSError, ValueError, RecursionError):
        return None
    return DriverResult.from_json(raw) if isinstance(raw, dict) else None
