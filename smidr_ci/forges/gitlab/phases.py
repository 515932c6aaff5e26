"""The phases of one job, each repeatable: sources, script with its build, after_script, uploads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import AGENT_STOPPED
from smidr_ci.errors import CancelledError, ConfigError, FailureKind, SmidrError
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.building import BuildFollower, tell_result
from smidr_ci.forges.gitlab.jobstore import Phase
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.ports import Outcome
from smidr_ci.forges.gitlab.reasons import CANCELED, SYSTEM, TIMEOUT, reason_for
from smidr_ci.forges.gitlab.script import JobScript
from smidr_ci.forges.gitlab.scripting import (
    ExitError,
    begin_script,
    run_after_script,
    run_lines,
)
from smidr_ci.forges.gitlab.sources import bring_sources, owner_of, with_exports
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
        for warning in _not_done(job):
            job.joblog.warning(warning)
        script = job.script()  # a job that this runner can't do fails before anything is fetched
        bring_sources(job)
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

    def _tell(self, record: BuildRecord, placed: Sequence[PlacedFile] = ()) -> None:
        try:
            self.job.workshop.tell(self.job.context, record, placed)
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
        if job.stops.job.is_cancelled:
            job.raise_if_left()
            return self._after_kill(outcome)
        try:
            project = self._sources()
            self._keep_caches(project, outcome)
            uploads = job.workshop.uploads(job.client)
            artifacts = None
            if job.state.build_id:
                record = job.workshop.builds.view(job.state.build_id).record
                artifacts = job.workshop.artifacts_of(record)
            given = with_exports(job)
            log = job.joblog
            placed = uploads.run(given, project, artifacts, outcome, job.stops.job, log)
            if placed and job.state.build_id:
                self._tell(job.workshop.builds.view(job.state.build_id).record, placed)
        except SmidrError as error:
            job.raise_if_left()
            if outcome.succeeded:
                return self._failure(error)
            job.joblog.error(str(error))
        return self._after_kill(outcome)

    def _sources(self) -> Path:
        """The project's directory; an empty one when the sources never came.

        What an earlier job left there is not this one's to keep or to upload.
        """
        if self.job.state.project:
            return self.job.project
        path = self.job.folder.path / "no-sources"
        try:
            return make_private_dir(path)
        except OSError as error:
            raise as_host_error(error, "can't make a directory", path) from error

    def _keep_caches(self, project: Path, outcome: Outcome) -> None:
        job = self.job
        caches, owner = job.workshop.caches, owner_of(job)
        if caches is None or not job.context.job.cache or not owner:
            return
        caches.save(
            with_exports(job),
            owner,
            project,
            job.stops.job,
            job.joblog,
            succeeded=outcome.succeeded,
        )

    def _after_kill(self, outcome: Outcome) -> Outcome:
        """A job that was killed behind its script has not succeeded."""
        stop = self.job.stops.reason
        if outcome.succeeded and self.job.stops.job.is_cancelled and stop is not None:
            return Outcome(False, _BY_STOP[stop], 0, self.job.stops.job.reason)
        return outcome


def _not_done(job: OpenJob) -> Iterator[str]:
    """What the job asks for in vain, and can do without."""
    given, workshop = job.context.job, job.workshop
    if workshop.scripts is None and any(hook.script for hook in given.hooks):
        yield "hooks: this runner does not run their lines"
    if given.cache and (workshop.caches is None or not owner_of(job)):
        yield "cache: is not kept by this runner"
    step = given.step("after_script")
    if step is not None and step.script and workshop.scripts is None:
        yield "after_script: this runner does not run its lines"
