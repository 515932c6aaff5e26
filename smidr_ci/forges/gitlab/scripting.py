"""The lines of a job's script around its build, and its after_script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.order import Order
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.forges.gitlab.durations import parse_duration
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.ports import ScriptRun
from smidr_ci.forges.gitlab.stops import Stop
from smidr_ci.forges.gitlab.workshop import LeftForLater

__all__ = ["ExitError", "begin_script", "run_after_script", "run_lines"]

_AFTER_SCRIPT_S: Final = 300.0
_STATUS_WORDS: Final = {Stop.CANCELED: "canceled", Stop.SCRIPT_TIMEOUT: "timedout"}


class ExitError(SmidrError):
    """Lines of the script ended with an exit code."""

    kind = FailureKind.BUILD

    def __init__(self, code: int) -> None:
        super().__init__(f"exit status {code}")
        self.code = code


def begin_script(job: OpenJob) -> None:
    """From now on a cancel stops the script only, and the script's own time limit counts."""
    job.stops.script_begins()
    now = job.workshop.clock.now()
    if job.state.script_begun is None:
        job.save(script_begun=now)
    text = job.context.variables.get("RUNNER_SCRIPT_TIMEOUT", "")
    limit = _limit(job, "RUNNER_SCRIPT_TIMEOUT", text) if text else None
    if limit is not None and job.state.script_begun is not None:
        spent = (now - job.state.script_begun).total_seconds()
        message = f"the script took longer than RUNNER_SCRIPT_TIMEOUT ({text})"
        job.stops.after(limit - spent, job.stops.script_timeout, message)


def _limit(job: OpenJob, name: str, text: str) -> float | None:
    limit = parse_duration(text)
    if limit is None:
        job.joblog.warning(f"{name}: {text!r} is no duration such as 90m; it does not count")
    elif limit > job.context.job.timeout_s:
        job.joblog.warning(f"{name} is longer than the job's timeout, which counts")
        return float(job.context.job.timeout_s)
    return limit


def run_lines(
    job: OpenJob,
    name: str,
    lines: Sequence[str],
    order: Order | None,
    cancel: CancelToken,
    *,
    directory: Path | None = None,
    status: str = "running",
    timeout_s: float | None = None,
) -> bool:
    """Whether the last line was reached; raises `ExitError` for a code that is not 0.

    They run in the project's directory, or another one.

    Raises `LeftForLater`, and `SmidrError` when the lines could not be run.
    """
    scripts = job.workshop.scripts
    if not lines or scripts is None or order is None:
        return True
    variables = job.context.variables
    run = ScriptRun(
        name=name,
        lines=tuple(lines),
        directory=directory or job.project,
        order=order,
        job_id=job.id,
        folder=job.folder.path,
        environment={**variables, "CI_JOB_STATUS": status},
        files={key: text.encode() for key, text in variables.files.items()},
        timeout_s=timeout_s,
    )
    run = replace(run, shown_bytes=job.trace.mark(run.mark))
    end = scripts.run(run, cancel, job.stops.leave, job.joblog)
    if end is None:
        raise LeftForLater
    job.trace.end_output()
    if end.code:
        raise ExitError(end.code)
    cancel.raise_if_cancelled()
    return end.has_finished


def run_after_script(job: OpenJob) -> None:
    """Run it when the script was begun; what goes wrong is a warning. Raises `LeftForLater`."""
    step = job.context.job.step("after_script")
    has_begun = job.state.script_begun is not None
    can_run = has_begun and job.workshop.scripts is not None
    if step is None or not step.script or not can_run or job.stops.job.is_cancelled:
        job.raise_if_left()
        return
    text = job.context.variables.get("RUNNER_AFTER_SCRIPT_TIMEOUT", "")
    limit = _limit(job, "RUNNER_AFTER_SCRIPT_TIMEOUT", text) if text else None
    with job.joblog.section("after_script", "Running after_script"):
        try:
            run_lines(
                job,
                "after_script",
                step.script,
                job.order(job.script()),
                job.stops.job,
                status=_status(job),
                timeout_s=limit or _AFTER_SCRIPT_S,
            )
        except SmidrError as error:
            job.raise_if_left()
            job.joblog.warning(f"after_script: {error.message}")


def _status(job: OpenJob) -> str:
    if job.stops.reason in _STATUS_WORDS:
        return _STATUS_WORDS[job.stops.reason]
    return "success" if job.state.succeeded else "failed"
