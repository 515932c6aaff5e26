"""The phases of one job, each repeatable: sources, script with its build, after_script, uploads."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import CancelledError, ConfigError, FailureKind, SmidrError
from smidr_ci.files import MARKER_NAME, make_marked_dir
from smidr_ci.forges.gitlab.building import BuildFollower, tell_result
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import JobContext
from smidr_ci.forges.gitlab.durations import parse_duration
from smidr_ci.forges.gitlab.joblog import TraceLog
from smidr_ci.forges.gitlab.jobstore import JobFolder, JobState, Phase
from smidr_ci.forges.gitlab.orders import order_for
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import Outcome, ScriptRun
from smidr_ci.forges.gitlab.reasons import CANCELED, SYSTEM, TIMEOUT, reason_for
from smidr_ci.forges.gitlab.script import JobScript, read_script
from smidr_ci.forges.gitlab.stops import JobStops, Stop
from smidr_ci.forges.gitlab.trace import Trace
from smidr_ci.forges.gitlab.trust import sharing_key
from smidr_ci.forges.gitlab.workshop import LeftForLater, Workshop
from smidr_ci.trust import Trust

__all__ = ["JobPhases"]

log = logging.getLogger(__name__)

_ORDER: Final = tuple(Phase)
_AFTER_SCRIPT_S: Final = 300.0
_BY_STOP: Final = {
    Stop.CANCELED: CANCELED,
    Stop.ABORTED: CANCELED,
    Stop.SCRIPT_TIMEOUT: TIMEOUT,
    Stop.JOB_TIMEOUT: TIMEOUT,
    Stop.INTERRUPTED: "runner_interrupted",
}
_STATUS_WORDS: Final = {Stop.CANCELED: "canceled", Stop.SCRIPT_TIMEOUT: "timedout"}


@dataclass
class JobPhases:
    """Runs what is left of a job and settles its outcome in the folder's state."""

    folder: JobFolder
    state: JobState
    context: JobContext
    client: RunnerClient
    workshop: Workshop
    stops: JobStops
    trace: Trace
    joblog: TraceLog

    def run(self) -> None:
        """All phases up to the report; raises `LeftForLater`."""
        if not self._is_past(Phase.AFTER):
            outcome = self._protected(self._attempt)
            self.stops.script_ended()
            self._settle(outcome, Phase.AFTER_SCRIPT)
        self.stops.script_ended()
        if not self._is_past(Phase.AFTER_SCRIPT):
            self._after_script()
            self._save(phase=Phase.UPLOADS)
        if not self._is_past(Phase.UPLOADS):
            outcome = self._protected(self._upload)
            self._settle(outcome, Phase.REPORT)

    def fail(self, reason: str, message: str) -> None:
        """Settle the job as failed before any of its phases."""
        self._settle(Outcome(False, reason, 0, message), Phase.REPORT)

    @property
    def is_told(self) -> bool:
        """Whether the trace has its last line already."""
        return self.trace.mark("told") > 0

    def remember_told(self) -> None:
        """The last line is written."""
        self.trace.set_mark("told", 1)

    @property
    def outcome(self) -> Outcome:
        """How the script went, as far as it is settled."""
        state = self.state
        return Outcome(
            state.succeeded, state.failure_reason, state.exit_code, state.message, state.build_id
        )

    def _is_past(self, phase: Phase) -> bool:
        return _ORDER.index(self.state.phase) > _ORDER.index(phase)

    def _save(self, **changes: object) -> None:
        self.state = self.folder.update(self.state, **changes)

    def _settle(self, outcome: Outcome, phase: Phase) -> None:
        self._save(
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
            self._raise_if_left()
            return self._failure(error)
        except Exception as error:
            self._raise_if_left()
            log.exception("job %d", self.context.job.id)
            return Outcome(False, SYSTEM, 0, f"a fault of smidr's own: {type(error).__name__}")

    def _raise_if_left(self) -> None:
        if self.stops.leave.is_set() and self.stops.reason is None:
            raise LeftForLater

    def _failure(self, error: SmidrError) -> Outcome:
        stop = self.stops.reason
        if stop is not None and isinstance(error, CancelledError):
            return Outcome(False, _BY_STOP[stop], 0, error.message)
        code = error.code if isinstance(error, _ExitError) else error.kind.exit_code
        return Outcome(False, reason_for(error.kind), code, str(error))

    def _attempt(self) -> Outcome:
        """Sources and script."""
        lines = self.context.job.step("script")
        for warning in _not_done(self.context.job, has_scripts=self.workshop.scripts is not None):
            self.joblog.warning(warning)
        project = self._sources()
        script = read_script(lines.script if lines else (), self.context.variables)
        has_lines = bool(script.before or script.after)
        if has_lines and self.workshop.scripts is None:
            raise ConfigError(
                "this runner runs no lines of 'script' but the call of smidr",
                where=(script.before or script.after)[0][:200],
                hint="Put other commands into another job.",
            )
        # The lines run in the build's image: without a config there is nowhere to run them.
        order = self._order(script, project) if has_lines else None
        self._begin_script()
        if self.trace.mark("step") == 0:
            header = 'Executing "step_script" stage of the job script'
            self.joblog.open_section("step_script", header)
            self.trace.set_mark("step", 1)
        try:
            if not self._is_past(Phase.BEFORE):
                self._save(phase=Phase.BEFORE)
                if not self._run_lines("before", script.before, order, self.stops.script):
                    self.joblog("The script ended before it came to the build.")
                    return Outcome(True)
            if not self._is_past(Phase.BUILD):
                if not self.state.build_id:
                    self._submit(script, project)
                self._follow()
            self._save(phase=Phase.AFTER)
            self._run_lines("after", script.after, order, self.stops.script)
        finally:
            if not self.stops.leave.is_set():
                self.trace.end_output()
                self.joblog.close_section("step_script")
        return Outcome(True, build_id=self.state.build_id)

    def _submit(self, script: JobScript, project: Path) -> None:
        order = self._order(script, project)
        self.stops.script.raise_if_cancelled()
        self._raise_if_left()
        record = None
        if self.state.phase is Phase.BUILD:  # killed before, maybe behind the submission
            known = self.workshop.builds_of(order.customer)
            record = next((item for item in known if item.requested_by == order.requested_by), None)
        if record is None:
            self.joblog.command(script.call)
            self._save(phase=Phase.BUILD)
            record = self.workshop.builds.submit(order)
        self._save(build_id=record.build_id)
        log.info("job %d is build %s", self.context.job.id, record.build_id)
        self._tell(record)

    def _tell(self, record: BuildRecord) -> None:
        try:
            self.workshop.tell(self.context, record)
        except SmidrError as error:  # the job's own reports say the same
            log.warning("job %d: %s", self.context.job.id, error)

    def _order(self, script: JobScript, project: Path) -> Order:
        return order_for(self.context, script.build, project, Trust(self.state.trust))

    def _sources(self) -> Path:
        if self.state.project:
            return Path(self.state.project)
        trust = self.state.trust or self.workshop.trust_of(self.context.job)
        self._save(phase=Phase.SOURCES, trust=str(trust))
        if trust == Trust.UNTRUSTED:
            self.joblog("This job is not trusted: its build can't change the host's caches.")
        if self.workshop.scripts is not None:
            self.workshop.scripts.forget(self._job_id)
        checkout = self.workshop.checkout(self.client)
        self.stops.job.raise_if_cancelled()
        directory = self._directory()
        self._save(directory=str(directory))
        (directory / MARKER_NAME).touch()  # when it was used last
        project = checkout.run(self.context.job, directory, self.stops.job, self.joblog)
        self.stops.job.raise_if_cancelled()
        self._save(project=str(project))
        return project

    def _directory(self) -> Path:
        """Kept for the project's next job: a fetch is quicker than a clone.

        Trusted jobs have their own, and untrusted ones one for each ref: nobody else's job has
        written into it.
        """
        registration, job = self.context.registration, self.context.job
        word = "trusted"
        if self.state.trust != Trust.TRUSTED:
            word = hashlib.sha256(sharing_key(job, registration.url).encode()).hexdigest()[:12]
        name = f"{registration.name}-{job.info.project_id}-{word}-{self.state.slot}"
        return make_marked_dir(self.workshop.checkouts / name, mode=0o700)

    def _begin_script(self) -> None:
        self.stops.script_begins()
        now = self.workshop.clock.now()
        if self.state.script_begun is None:
            self._save(script_begun=now)
        text = self.context.variables.get("RUNNER_SCRIPT_TIMEOUT", "")
        limit = self._limit("RUNNER_SCRIPT_TIMEOUT", text) if text else None
        if limit is not None and self.state.script_begun is not None:
            spent = (now - self.state.script_begun).total_seconds()
            message = f"the script took longer than RUNNER_SCRIPT_TIMEOUT ({text})"
            self.stops.after(limit - spent, self.stops.script_timeout, message)

    def _limit(self, name: str, text: str) -> float | None:
        limit = parse_duration(text)
        if limit is None:
            self.joblog.warning(f"{name}: {text!r} is no duration such as 90m; it does not count")
        elif limit > self.context.job.timeout_s:
            self.joblog.warning(f"{name} is longer than the job's timeout, which counts")
            return float(self.context.job.timeout_s)
        return limit

    def _run_lines(
        self,
        name: str,
        lines: Sequence[str],
        order: Order | None,
        cancel: CancelToken,
        status: str = "running",
        timeout_s: float | None = None,
    ) -> bool:
        """Whether the last line was reached; raises for an exit code that is not 0."""
        scripts = self.workshop.scripts
        if not lines or scripts is None or order is None:
            return True
        variables = self.context.variables
        run = ScriptRun(
            name=name,
            lines=tuple(lines),
            directory=Path(self.state.project),
            order=order,
            job_id=self._job_id,
            folder=self.folder.path,
            environment={**variables, "CI_JOB_STATUS": status},
            files={key: text.encode() for key, text in variables.files.items()},
            timeout_s=timeout_s,
        )
        run = replace(run, shown_bytes=self.trace.mark(run.mark))
        end = scripts.run(run, cancel, self.stops.leave, self.joblog)
        if end is None:
            raise LeftForLater
        self.trace.end_output()
        if end.code:
            raise _ExitError(end.code)
        cancel.raise_if_cancelled()
        return end.has_finished

    @property
    def _job_id(self) -> str:
        return self.folder.path.name

    def _follow(self) -> None:
        service, build_id = self.workshop.builds, self.state.build_id
        console = self.workshop.console_of(build_id)
        clock = self.workshop.clock
        follower = BuildFollower(service, build_id, console, self.trace, self.joblog, clock)
        record = follower.run(self.stops.script, self.stops.leave)
        if record is None:
            raise LeftForLater
        self._tell(record)
        tell_result(self.joblog.needed, record)
        if record.state is BuildState.CANCELLED:
            raise CancelledError(record.cancel_reason or "the build was cancelled")
        if record.state is not BuildState.COMPLETED:
            kind = record.failure_kind or FailureKind.BUILD
            raise SmidrError(record.failure_message or "the build failed", kind=kind)

    def _after_script(self) -> None:
        step = self.context.job.step("after_script")
        has_begun = self.state.script_begun is not None
        can_run = has_begun and self.workshop.scripts is not None
        if step is None or not step.script or not can_run or self.stops.job.is_cancelled:
            self._raise_if_left()
            return
        text = self.context.variables.get("RUNNER_AFTER_SCRIPT_TIMEOUT", "")
        limit = self._limit("RUNNER_AFTER_SCRIPT_TIMEOUT", text) if text else None
        status = "success" if self.state.succeeded else "failed"
        if self.stops.reason in _STATUS_WORDS:
            status = _STATUS_WORDS[self.stops.reason]
        with self.joblog.section("after_script", "Running after_script"):
            try:
                self._run_lines(
                    "after_script",
                    step.script,
                    self._order_again(),
                    self.stops.job,
                    status,
                    limit or _AFTER_SCRIPT_S,
                )
            except SmidrError as error:
                self._raise_if_left()
                self.joblog.warning(f"after_script: {error.message}")

    def _order_again(self) -> Order:
        """The order of the script that is over; raises `ConfigError`."""
        step = self.context.job.step("script")
        script = read_script(step.script if step else (), self.context.variables)
        return self._order(script, Path(self.state.project))

    def _upload(self) -> Outcome:
        outcome = self.outcome
        if not self.state.project or self.stops.job.is_cancelled:
            self._raise_if_left()
            return self._after_kill(outcome)
        uploads = self.workshop.uploads(self.client)
        project, artifacts = Path(self.state.project), None
        if self.state.build_id:
            record = self.workshop.builds.view(self.state.build_id).record
            artifacts = self.workshop.artifacts_of(record)
        try:
            uploads.run(self.context.job, project, artifacts, outcome, self.stops.job, self.joblog)
        except SmidrError as error:
            self._raise_if_left()
            if outcome.succeeded:
                return self._failure(error)
            self.joblog.error(str(error))
        return self._after_kill(outcome)

    def _after_kill(self, outcome: Outcome) -> Outcome:
        """A job that was killed behind its script has not succeeded."""
        stop = self.stops.reason
        if outcome.succeeded and self.stops.job.is_cancelled and stop is not None:
            return Outcome(False, _BY_STOP[stop], 0, self.stops.job.reason)
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


class _ExitError(SmidrError):
    """Lines of the script ended with an exit code."""

    kind = FailureKind.BUILD

    def __init__(self, code: int) -> None:
        super().__init__(f"exit status {code}")
        self.code = code
