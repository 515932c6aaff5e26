"""The phases of one job, each repeatable: sources, script with its build, after_script, uploads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import AGENT_STOPPED
from smidr_ci.errors import CancelledError, ConfigError, FailureKind, SmidrError
from smidr_ci.forges.gitlab.building import BuildFollower, tell_result
from smidr_ci.forges.gitlab.jobstore import Phase
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import Outcome
from smidr_ci.forges.gitlab.reasons import CANCELED, SYSTEM, TIMEOUT, reason_for
from smidr_ci.forges.gitlab.script import JobScript, read_script
from smidr_ci.forges.gitlab.scripting import (
    ExitError,
    begin_script,
    run_after_script,
    run_lines,
)
from smidr_ci.forges.gitlab.sources import bring_sources
from smidr_ci.forges.gitlab.stops import Stop
from smidr_ci.forges.gitlab.workshop import LeftForLater

__all__ = ["JobPhases"]

log = logging.getLogger(__name__)

_BY_STOP: Final = {
    Stop.CANCELED: CANCELED,
    Stop.ABORTED: CANCELED,
    Stop.SCRIPT_TIMEOUT: TIMEOUT,
    Stop.JOB_TIMEOUT: TIMEOUT,
    Stop.INTERRUPTED: "runner_interrupted",
}


@dataclass
class JobPhases:
    """Runs what is left of a job and settles its outcome in the job's state."""

    job: OpenJob

    def run(self) -> None:
        """All phases up to the report; raises `LeftForLater`."""
        job = self.job
        if not job.is_past(Phase.AFTER):
            outcome = self._protected(self._attempt)
            job.stops.script_ended()
            self._settle(outcome, Phase.AFTER_SCRIPT)
        job.stops.script_ended()
        if not job.is_past(Phase.AFTER_SCRIPT):
            run_after_script(job)
            job.save(phase=Phase.UPLOADS)
        if not job.is_past(Phase.UPLOADS):
            outcome = self._protected(self._upload)
            self._settle(outcome, Phase.REPORT)

    def fail(self, reason: str, message: str) -> None:
        """Settle the job as failed before any of its phases."""
        self._settle(Outcome(False, reason, 0, message), Phase.REPORT)

    @property
    def is_told(self) -> bool:
        """Whether the trace has its last line already."""
        return self.job.trace.mark("told") > 0

    def remember_told(self) -> None:
        """The last line is written."""
        self.job.trace.set_mark("told", 1)

    @property
    def outcome(self) -> Outcome:
        """How the script went, as far as it is settled."""
        state = self.job.state
        return Outcome(
            state.succeeded, state.failure_reason, state.exit_code, state.message, state.build_id
        )

    def _settle(self, outcome: Outcome, phase: Phase) -> None:
        self.job.save(
            phase=phase,
            succeeded=outcome.succeeded,
            failure_reason=outcome.failure_reason,
            exit_code=outcome.exit_code,
            message=outcome.message,
        )

    def _protected(self, work: Callable[[], Outcome]) -> Outcome:
        try:
            return work()
        except LeftForLater:
            raise
        except SmidrError as error:
            self.job.raise_if_left()
            return self._failure(error)
        except Exception as error:
            self.job.raise_if_left()
            log.exception("%s", self.job.id)
            return Outcome(False, SYSTEM, 0, f"a fault of smidr's own: {type(error).__name__}")

    def _failure(self, error: SmidrError) -> Outcome:
        stop = self.job.stops.reason
        if stop is not None and isinstance(error, CancelledError):
            return Outcome(False, _BY_STOP[stop], 0, error.message)
        code = error.code if isinstance(error, ExitError) else error.kind.exit_code
        return Outcome(False, reason_for(error.kind), code, str(error))

    def _attempt(self) -> Outcome:
        """Sources and script."""
        job = self.job
        for warning in _not_done(job.context.job, has_scripts=job.workshop.scripts is not None):
            job.joblog.warning(warning)
        bring_sources(job)
        step = job.context.job.step("script")
        script = read_script(step.script if step else (), job.context.variables)
        has_lines = bool(script.before or script.after)
        if has_lines and job.workshop.scripts is None:
            raise ConfigError(
                "this runner runs no lines of 'script' but the call of smidr",
                where=(script.before or script.after)[0][:200],
                hint="Put other commands into another job.",
            )
        begin_script(job)
        if job.trace.mark("step") == 0:
            header = 'Executing "step_script" stage of the job script'
            job.joblog.open_section("step_script", header)
            job.trace.set_mark("step", 1)
        try:
            return self._script(script)
        finally:
            if not job.stops.leave.is_set():
                job.trace.end_output()
                job.joblog.close_section("step_script")

    def _script(self, script: JobScript) -> Outcome:
        """Lines, build, lines; what of it is over is passed over."""
        job = self.job
        # The lines run in the build's image: without a config there is nowhere to run them.
        order = job.order(script) if script.before or script.after else None
        if not job.is_past(Phase.BEFORE):
            job.save(phase=Phase.BEFORE)
            if not run_lines(job, "before", script.before, order, job.stops.script):
                job.joblog("The script ended before it came to the build.")
                return Outcome(True)
        if not job.is_past(Phase.BUILD):
            if not job.state.build_id:
                self._submit(script)
            self._follow()
        job.save(phase=Phase.AFTER)
        run_lines(job, "after", script.after, order, job.stops.script)
        return Outcome(True, build_id=job.state.build_id)

    def _submit(self, script: JobScript) -> None:
        job = self.job
        order = job.order(script)
        job.stops.script.raise_if_cancelled()
        job.raise_if_left()
        record = None
        if job.state.phase is Phase.BUILD:  # killed before, maybe behind the submission
            known = job.workshop.builds_of(order.customer)
            record = next((item for item in known if item.requested_by == order.requested_by), None)
        if record is None:
            job.joblog.command(script.call)
            job.save(phase=Phase.BUILD)
            record = job.workshop.builds.submit(order)
        job.save(build_id=record.build_id)
        log.info("%s is build %s", job.id, record.build_id)
        self._tell(record)

    def _tell(self, record: BuildRecord) -> None:
        try:
            self.job.workshop.tell(self.job.context, record)
        except SmidrError as error:  # the job's own reports say the same
            log.warning("%s: %s", self.job.id, error)

    def _follow(self) -> None:
        job = self.job
        build_id, workshop = job.state.build_id, job.workshop
        follower = BuildFollower(
            workshop.builds,
            build_id,
            workshop.console_of(build_id),
            job.trace,
            job.joblog,
            workshop.clock,
        )
        record = follower.run(job.stops.script, job.stops.leave)
        if record is None:
            raise LeftForLater
        self._tell(record)
        tell_result(job.joblog.needed, record)
        if record.state is BuildState.CANCELLED:
            is_ours = record.cancel_reason == AGENT_STOPPED
            kind = FailureKind.INTERRUPTED if is_ours else FailureKind.CANCELLED
            raise CancelledError(record.cancel_reason or "the build was cancelled", kind=kind)
        if record.state is not BuildState.COMPLETED:
            kind = record.failure_kind or FailureKind.BUILD
            raise SmidrError(record.failure_message or "the build failed", kind=kind)

    def _upload(self) -> Outcome:
        job, outcome = self.job, self.outcome
        if not job.state.project or job.stops.job.is_cancelled:
            job.raise_if_left()
            return self._after_kill(outcome)
        uploads = job.workshop.uploads(job.client)
        artifacts = None
        if job.state.build_id:
            record = job.workshop.builds.view(job.state.build_id).record
            artifacts = job.workshop.artifacts_of(record)
        try:
            uploads.run(job.context.job, job.project, artifacts, outcome, job.stops.job, job.joblog)
        except SmidrError as error:
            job.raise_if_left()
            if outcome.succeeded:
                return self._failure(error)
            job.joblog.error(str(error))
        return self._after_kill(outcome)

    def _after_kill(self, outcome: Outcome) -> Outcome:
        """A job that was killed behind its script has not succeeded."""
        stop = self.job.stops.reason
        if outcome.succeeded and self.job.stops.job.is_cancelled and stop is not None:
            return Outcome(False, _BY_STOP[stop], 0, self.job.stops.job.reason)
        return outcome


def _not_done(job: Job, *, has_scripts: bool) -> Iterator[str]:
    """What the job asks for in vain, and can do without."""
    if any(hook.script for hook in job.hooks):
        yield "hooks: this runner does not run their lines"
    if job.cache:
        yield (
            "cache: is not kept by this runner; downloads and shared state are common to all "
            "builds of the host"
        )
    step = job.step("after_script")
    if step is not None and step.script and not has_scripts:
        yield "after_script: this runner does not run its lines"
