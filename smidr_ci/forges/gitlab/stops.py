"""All that can stop a job, in one place: cancel, abort, time limits, the agent's own end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum

from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.errors import FailureKind

__all__ = ["JobStops", "Stop"]


class Stop(StrEnum):
    """Why a job was stopped."""

    CANCELED = "canceled"
    ABORTED = "aborted"
    """The server does not want it any more."""
    SCRIPT_TIMEOUT = "script-timeout"
    JOB_TIMEOUT = "job-timeout"
    INTERRUPTED = "interrupted"
    """Whoever runs the agent wants its jobs ended."""


class JobStops:
    """Thread-safe. `script` stops the script only, `job` all that follows it as well."""

    def __init__(self) -> None:
        self.script = CancelToken()
        self.job = CancelToken()
        self.leave = threading.Event()
        """The agent ends and the job shall go on later."""
        self.reason: Stop | None = None
        """The first that came; an abort wins over all."""
        self._lock = threading.Lock()
        self._is_before_script = True
        self._is_script_over = False
        self._timers: list[threading.Timer] = []

    def script_begins(self) -> None:
        """From now on a cancel stops the script only."""
        with self._lock:
            self._is_before_script = False

    def script_ended(self) -> None:
        """From now on a cancel changes nothing: what is left runs to its end."""
        with self._lock:
            self._is_before_script = False
            self._is_script_over = True

    def cancel(self, message: str) -> None:
        """GitLab's `canceling`: stop the script, go on with after_script and uploads."""
        self._stop(Stop.CANCELED, message, FailureKind.CANCELLED)

    def script_timeout(self, message: str) -> None:
        """The script took too long."""
        self._stop(Stop.SCRIPT_TIMEOUT, message, FailureKind.TIMEOUT)

    def job_timeout(self, message: str) -> None:
        """The job took too long: nothing more runs."""
        self._kill(Stop.JOB_TIMEOUT, message, FailureKind.TIMEOUT)

    def abort(self, message: str) -> None:
        """GitLab's `canceled`, `failed` or 403: nothing more runs."""
        self._kill(Stop.ABORTED, message, FailureKind.CANCELLED)

    def interrupt(self, message: str) -> None:
        """End the job for the agent's sake: nothing more runs."""
        self._kill(Stop.INTERRUPTED, message, FailureKind.INTERRUPTED)

    def leave_for_later(self) -> None:
        """Stop what can be done again later; a build is left running."""
        self.leave.set()
        for token in (self.script, self.job):
            token.cancel("the agent ends", CancelLevel.KILL, FailureKind.INTERRUPTED)

    def after(self, seconds: float, action: Callable[[str], None], message: str) -> None:
        """Call one of the above when so much time has passed."""
        timer = threading.Timer(max(0.0, min(seconds, threading.TIMEOUT_MAX)), action, (message,))
        timer.daemon = True
        with self._lock:
            self._timers.append(timer)
        timer.start()

    def forget_timers(self) -> None:
        """No time limit counts any more."""
        with self._lock:
            timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()

    def _stop(self, reason: Stop, message: str, kind: FailureKind) -> None:
        with self._lock:
            if self._is_script_over:
                return
            self.reason = self.reason or reason
            self.script.cancel(message, CancelLevel.INTERRUPT, kind)
            if self._is_before_script:
                self.job.cancel(message, CancelLevel.KILL, kind)
                self.script.cancel(message, CancelLevel.KILL, kind)

    def _kill(self, reason: Stop, message: str, kind: FailureKind) -> None:
        with self._lock:
            if self.reason is None or reason is Stop.ABORTED:
                self.reason = reason
            for token in (self.script, self.job):
                token.cancel(message, CancelLevel.KILL, kind)
