"""Keeps the server informed of one job: trace, keep-alive, final state; learns of cancels."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.forges.gitlab.answers import JobReply, Verdict
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.stops import JobStops
from smidr_ci.forges.gitlab.trace import Trace
from smidr_ci.forges.gitlab.transport import Pause

__all__ = ["FinalState", "Sender"]

log = logging.getLogger(__name__)

MAX_PATCH: Final = 1024 * 1024
MIN_PATCH: Final = 16 * 1024
_FIRST_PATCH: Final = 128 * 1024
_SLOW_S: Final = 20.0
_FAST_S: Final = 5.0
_INTERVAL_S: Final = 3.0
_KEEP_ALIVE_S: Final = 30.0
_NOT_FOUND_S: Final = 600.0
"""A GitLab that is upgraded behind its proxy answers 404 for so long at most."""
_LONGEST_BACKOFF_S: Final = 60.0
_RANGES: Final = 5


@dataclass(frozen=True)
class FinalState:
    """How a job ended, as GitLab wants to hear it: `success` or `failed`, and why."""

    state: str
    failure_reason: str = ""
    exit_code: int = 0


class Sender:
    """`run` is the loop of a thread of its own; `finish` comes after that thread has ended.

    `on_cancel` and the abort of `stops` are called once each, with a message; its `leave` ends
    the trying.
    """

    def __init__(
        self,
        client: RunnerClient,
        job: Job,
        trace: Trace,
        *,
        clock: Clock,
        stops: JobStops,
        on_cancel: Callable[[str], None],
        pause: Pause | None = None,
        is_debug: bool = False,
    ) -> None:
        self._client = client
        self._job = job
        self._trace = trace
        self._clock = clock
        self._on_cancel: Callable[[str], None] | None = on_cancel
        self._on_abort: Callable[[str], None] | None = stops.abort
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._pause_between_tries = pause or stops.leave.wait
        self._is_debug = is_debug
        self.interval_s = _INTERVAL_S
        self._sent = trace.mark("sent")
        self._contact = clock.monotonic()
        self._patch_bytes = _FIRST_PATCH
        self._missing_since: float | None = None
        self.was_aborted = False

    def stop(self) -> None:
        """End `run`; what is not sent yet waits for `finish`."""
        self._stopped.set()

    def run(self) -> None:
        """Send what there is at each interval, until `stop` or until the job is not ours."""
        while not self._pause(self.interval_s) and not self._stopped.is_set():
            self.tick()
            if self.was_aborted:
                return

    def acknowledge(self, state: str = "running") -> JobReply:
        """Tell that the job was taken (`running`), or that it will be (`pending`)."""
        reply = self._client.update_job(self._job.id, self._job.token, state)
        self._contact = self._clock.monotonic()
        return reply

    def tick(self) -> None:
        """One round: the trace, or a sign of life when there is nothing new for long."""
        verdict = self._drain()
        if verdict not in {None, Verdict.OK} or self.was_aborted:
            return
        if self._clock.monotonic() - self._contact > _KEEP_ALIVE_S:
            trace = self._trace
            reply = self._client.update_job(
                self._job.id,
                self._job.token,
                "running",
                crc32=trace.crc32,
                size_bytes=trace.size,
            )
            self._heed(reply)
            if reply.verdict is Verdict.OK:
                self._contact = self._clock.monotonic()

    def finish(self, final: FinalState, *, until_s: float, attempts: int | None = None) -> bool:
        """Bring the rest of the trace and the final state; whether there is nothing left to do.

        Tries until the clock's monotonic `until_s`, or so many attempts. An abort counts as done:
        the server does not want to hear of the job any more.
        """
        self.interval_s = _INTERVAL_S
        if self.was_aborted:
            self._put(final)  # for the record; what it answers does not matter
            return True
        backoff, tried = 1.0, 0
        while True:
            outcome = self._try_finish(final)
            if outcome is not None:
                return outcome
            tried += 1
            is_late = self._clock.monotonic() + backoff > until_s
            if is_late or (attempts is not None and tried >= attempts):
                return False
            if self._pause_between_tries(backoff):
                return False
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)

    def _try_finish(self, final: FinalState) -> bool | None:
        """True when done, False when told to stop, None when this attempt failed."""
        while True:
            verdict = self._drain(is_last=True)
            if self.was_aborted:
                return True
            if verdict not in {None, Verdict.OK, Verdict.NOT_FOUND}:
                return None
            reply = self._put(final)
            self._take_interval(reply)
            if reply.verdict in {Verdict.OK, Verdict.ABORT, Verdict.NOT_FOUND}:
                return True
            if reply.verdict is Verdict.TRACE_LOST:
                self._sent = 0
            elif reply.verdict is Verdict.ACCEPTED:
                if self._pause_between_tries(self.interval_s):
                    return False
            else:
                log.info("job %d: final state not taken: %s", self._job.id, reply.message)
                return None

    def _put(self, final: FinalState) -> JobReply:
        return self._client.update_job(
            self._job.id,
            self._job.token,
            final.state,
            failure_reason=final.failure_reason,
            exit_code=final.exit_code,
            crc32=self._trace.crc32,
            size_bytes=self._trace.size,
        )

    def _drain(self, *, is_last: bool = False) -> Verdict | None:
        """Send all that may be sent; the last verdict, None when there was nothing."""
        self._trace.checkpoint()
        verdict, ranges = None, 0
        while chunk := self._trace.read(self._sent, self._patch_bytes):
            begun = self._clock.monotonic()
            reply = self._client.patch_trace(
                self._job.id, self._job.token, chunk, self._sent, is_debug=self._is_debug
            )
            self._adapt(reply, self._clock.monotonic() - begun)
            self._heed(reply)
            verdict = reply.verdict
            if verdict is Verdict.RANGE:
                ranges += 1
                self._reposition(reply.offset)
            elif verdict is Verdict.OK:
                self._reposition(reply.offset)
            if verdict not in {Verdict.OK, Verdict.RANGE} or self.was_aborted or ranges > _RANGES:
                break
            if self._stopped.is_set() and not is_last:
                break
        return verdict

    def _reposition(self, offset: int) -> None:
        if offset > self._trace.size:
            log.warning("job %d: the server has more of the trace than we", self._job.id)
            self._trace.skip_to(offset)
        self._sent = offset
        self._trace.set_mark("sent", offset)
        self._contact = self._clock.monotonic()

    def _adapt(self, reply: JobReply, took_s: float) -> None:
        # On a slow line a patch of full size would not arrive within the time limit, ever.
        if reply.status == 0 or took_s > _SLOW_S:
            self._patch_bytes = max(MIN_PATCH, self._patch_bytes // 2)
        elif took_s < _FAST_S:
            self._patch_bytes = min(MAX_PATCH, self._patch_bytes * 2)

    def _heed(self, reply: JobReply) -> None:
        self._take_interval(reply)
        if reply.is_canceling and self._on_cancel is not None:
            tell, self._on_cancel = self._on_cancel, None
            tell("the job was canceled in GitLab")
        if reply.verdict is Verdict.NOT_FOUND:
            now = self._clock.monotonic()
            self._missing_since = self._missing_since or now
            is_gone = now - self._missing_since > _NOT_FOUND_S
        else:
            is_gone = reply.verdict is Verdict.ABORT
            self._missing_since = None if reply.status else self._missing_since
        if is_gone:
            self.was_aborted = True
            if self._on_abort is not None:
                tell, self._on_abort = self._on_abort, None
                tell(f"GitLab does not want the job any more ({reply.message})")

    def _take_interval(self, reply: JobReply) -> None:
        if reply.interval_s is not None:
            self.interval_s = reply.interval_s
