"""One job from its acknowledgement to its final state; goes on where another process was killed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from smidr_ci import __version__
from smidr_ci.builds.model import BuildState
from smidr_ci.errors import SmidrError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.answers import Verdict
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import JobContext, context_of
from smidr_ci.forges.gitlab.durations import duration_text
from smidr_ci.forges.gitlab.joblog import TraceLog
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState, Phase
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.parsing import identity_of, parse_job
from smidr_ci.forges.gitlab.payload import Job, Variable
from smidr_ci.forges.gitlab.phases import JobPhases
from smidr_ci.forges.gitlab.reasons import CANCELED, SYSTEM, supported_reason
from smidr_ci.forges.gitlab.sender import FinalState, Sender
from smidr_ci.forges.gitlab.stops import JobStops
from smidr_ci.forges.gitlab.trace import Trace
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.forges.gitlab.workshop import LeftForLater, Workshop
from smidr_ci.forges.registration import Registration, short_token

__all__ = ["JobRun"]

log = logging.getLogger(__name__)

_BEFORE_BUILD: Final = frozenset({Phase.RECEIVED, Phase.SOURCES, Phase.BEFORE, Phase.BUILD})
_TOKEN_GRACE_S: Final = 300.0
"""So long after the job's timeout its token is valid."""
_SHORTEST_TOKEN_S: Final = 60.0
_SOFT_FROM_S: Final = 600
"""Jobs with a shorter timeout have no soft deadline."""
_SOFT_SHARE: Final = 0.05
_LONGEST_SOFT_S: Final = 600.0


class JobRun:
    """`run` does the whole job and returns when the server knows its end, or after `leave`."""

    def __init__(
        self,
        folder: JobFolder,
        registration: Registration,
        client: RunnerClient,
        workshop: Workshop,
        *,
        tls: tuple[Variable, ...] = (),
        pause: Pause | None = None,
    ) -> None:
        self.folder = folder
        self.stops = JobStops()
        self.state = folder.load()
        self.job, self._problem = _read(folder)
        self.context: JobContext = context_of(registration, self.job, slot=self.state.slot, tls=tls)
        self._client = client
        self._workshop = workshop
        self._pause = pause
        self._phases: JobPhases | None = None

    @property
    def progress(self) -> JobState:
        """How far the job has come."""
        return self.state if self._phases is None else self._phases.job.state

    @property
    def awaits_build(self) -> bool:
        """Whether it will ask for a build and has not yet."""
        return not self.progress.build_id and self.progress.phase in _BEFORE_BUILD

    @property
    def keeps_agent(self) -> bool:
        """Whether an agent that drains should wait for it: not for a build that waits."""
        progress = self.progress
        if progress.phase is not Phase.BUILD or not progress.build_id:
            return True
        try:
            view = self._workshop.builds.view(progress.build_id)
        except SmidrError:
            return True  # the job itself will say what is wrong
        return view.record.state is not BuildState.QUEUED

    @property
    def described(self) -> str:
        """The job and its build in a few words."""
        build_id = self.progress.build_id
        return f"{self.context.title}: {f'build {build_id}' if build_id else self.progress.phase}"

    def run(self) -> None:
        """Never raises; what goes wrong is the job's failure, or in the log."""
        try:
            self._run()
        except LeftForLater:
            log.info("job %d goes on later", self.job.id)
        except Exception:
            log.exception("job %d", self.job.id)

    def leave(self) -> None:
        """Stop soon and let the job go on after a restart; its build runs on."""
        self.stops.leave_for_later()

    def interrupt(self, message: str) -> None:
        """End the job; GitLab hears that the runner did it."""
        self.stops.interrupt(message)

    def _run(self) -> None:
        clock, variables = self._workshop.clock, self.context.variables
        trace = Trace(
            self.folder.path,
            clock=clock,
            secrets=self.context.secrets,
            prefixes=self.job.features.token_mask_prefixes,
            limit_bytes=self._workshop.trace_limit,
            has_timestamps=variables.flag("FF_TIMESTAMPS", default=True),
        )
        joblog = TraceLog(trace, clock, has_sections=self.job.features.trace_sections)
        wants_debug = variables.flag("CI_DEBUG_TRACE")
        sender = Sender(
            self._client,
            self.job,
            trace,
            clock=clock,
            stops=self.stops,
            on_cancel=self._on_cancel(joblog),
            pause=self._pause,
            is_debug=wants_debug and self._workshop.is_debug_trace_allowed,
        )
        sender.interval_s = self._workshop.trace_interval_s
        try:
            if self.state.phase is Phase.RECEIVED and not self._acknowledge(sender, trace, joblog):
                self.folder.remove()
                return
            self._greet(joblog)
            if wants_debug and not self._workshop.is_debug_trace_allowed:
                joblog.warning("CI_DEBUG_TRACE is switched off on this runner")
            phases = self._work(sender, trace, joblog)
            self._report(sender, joblog, phases)
        finally:
            self.stops.forget_timers()
            trace.checkpoint()
            trace.close()

    def _on_cancel(self, joblog: TraceLog) -> Callable[[str], None]:
        def cancel(message: str) -> None:
            joblog.warning("script canceled externally (UI, API)")
            self.stops.cancel(message)

        return cancel

    def _acknowledge(self, sender: Sender, trace: Trace, joblog: TraceLog) -> bool:
        """Tell that the job was taken; whether there is anything to do, and to report, then."""
        reply = sender.acknowledge()
        if reply.verdict in {Verdict.ABORT, Verdict.NOT_FOUND}:
            log.info("job %d is not wanted any more: %s", self.job.id, reply.message)
            return False
        if reply.is_canceling:
            joblog.warning("the job was canceled before it began")
            reason = supported_reason(CANCELED, self.job.features.failure_reasons)
            sender.finish(FinalState("failed", reason), until_s=self._until_s())
            return False
        trace.checkpoint()
        return True

    def _greet(self, joblog: TraceLog) -> None:
        if self.state.phase is not Phase.RECEIVED:
            if self.state.phase is not Phase.REPORT:
                joblog("smidr was restarted; the job goes on.")
            return
        registration = self.context.registration
        joblog(f"Running with smidr-ci {__version__}")
        token = short_token(registration.token)
        joblog(f"  on {registration.name} {token}, system ID: {self._client.system_id}")
        with joblog.section("prepare_executor", 'Preparing the "smidr" executor'):
            limit = duration_text(self.job.timeout_s)
            joblog(f"The job has {limit}; builds run in containers of this host.")

    def _work(self, sender: Sender, trace: Trace, joblog: TraceLog) -> JobPhases:
        phases = JobPhases(
            OpenJob(
                self.folder,
                self.state,
                self.context,
                self._client,
                self._workshop,
                self.stops,
                trace,
                joblog,
            )
        )
        self._phases = phases
        thread = threading.Thread(
            target=sender.run, name=f"gitlab-trace-{self.job.id}", daemon=True
        )
        thread.start()
        try:
            self._set_deadlines()
            if self._problem:
                joblog.error(self._problem)
                phases.fail(SYSTEM, self._problem)
            phases.run()
        finally:
            sender.stop()
            thread.join()
        return phases

    def _set_deadlines(self) -> None:
        limit = float(self.job.timeout_s)
        left = limit - self._age_s()
        message = f"execution took longer than {duration_text(limit)} seconds"
        self.stops.after(left, self.stops.job_timeout, message)
        if self.job.timeout_s >= _SOFT_FROM_S:
            margin = min(limit * _SOFT_SHARE, _LONGEST_SOFT_S)
            soft = (
                f"the job's time of {duration_text(limit)} is nearly over; the build was stopped "
                "early enough to keep its logs"
            )
            self.stops.after(left - margin, self.stops.script_timeout, soft)

    def _report(self, sender: Sender, joblog: TraceLog, phases: JobPhases) -> None:
        outcome = phases.outcome
        if not phases.is_told:
            _tell_end(joblog, phases)
            phases.remember_told()
        if outcome.succeeded:
            final = FinalState("success")
        else:
            reason = supported_reason(outcome.failure_reason, self.job.features.failure_reasons)
            final = FinalState("failed", reason, outcome.exit_code)
        self.stops.forget_timers()
        is_done = sender.finish(
            final, until_s=self._until_s(), attempts=self._workshop.final_attempts
        )
        if self.stops.leave.is_set() and not is_done:
            raise LeftForLater
        if not is_done:
            log.error("job %d: GitLab could not be told of its end", self.job.id)
        if self._workshop.scripts is not None:
            self._workshop.scripts.forget(self.folder.path.name)
        self.folder.remove()

    def _age_s(self) -> float:
        return (self._workshop.clock.now() - self.state.received).total_seconds()

    def _until_s(self) -> float:
        """When the job's token dies, by the monotonic clock."""
        valid = max(_SHORTEST_TOKEN_S, self.job.timeout_s) + _TOKEN_GRACE_S
        return self._workshop.clock.monotonic() + valid - self._age_s()


def _read(folder: JobFolder) -> tuple[Job, str]:
    """The job, or what can be known of it and why it can't be done."""
    try:
        job = parse_job(folder.payload)
    except ForgeError as error:
        identity = identity_of(folder.payload)
        return Job(identity.id, identity.token), str(error)
    return job, "; ".join(job.unsupported)


def _tell_end(joblog: TraceLog, phases: JobPhases) -> None:
    outcome = phases.outcome
    if outcome.succeeded:
        joblog.result("Job succeeded", succeeded=True)
        return
    kind = " (system failure)" if outcome.failure_reason == SYSTEM else ""
    joblog.result(f"ERROR: Job failed{kind}: {outcome.message}", succeeded=False)
