"""Run BitBake in a workspace, again when the failure's kind says that it may pass."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from smidr_ci.bitbake.parse_cache import cache_files
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.blame import at_its_target
from smidr_ci.builds.checkpoint import Trail
from smidr_ci.builds.execute import Execution, Executor, recall
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome, judge
from smidr_ci.builds.preparation import Preparation
from smidr_ci.builds.rebuilt import has_rebuilt, why_rebuilt
from smidr_ci.builds.retry import Retries
from smidr_ci.builds.strictness import judge_warnings
from smidr_ci.cancel import CancelToken
from smidr_ci.diagnosis.model import Finding
from smidr_ci.errors import EngineError
from smidr_ci.workspaces.model import Workspace

__all__ = ["run_attempts"]


def run_attempts(
    host: Host,
    prepared: Preparation,
    workspace: Workspace,
    trail: Trail,
    journal: Journal,
    cancel: CancelToken,
) -> Outcome:
    """Build until it succeeds, fails for good or is cancelled.

    The record then holds the findings, and why tasks ran again. An attempt that another process
    began is followed to its end.
    """
    control = host.control_of(journal.record.build_id)
    checkpoint = trail.require()
    journal.enter(BuildState.BUILDING)
    retries = Retries(
        prepared.sstate_of(workspace),
        checkpoint.fetch_retries,
        has_set_aside=checkpoint.has_set_aside,
    )
    while True:
        execution = _execute(host, trail, control, journal, cancel)
        _keep_parse_cache(host, prepared, workspace, execution)
        journal.note(**_figures(execution.progress))
        outcome = judge(execution, cancel, ())
        if outcome.state is BuildState.CANCELLED:
            return outcome
        has_failed = outcome.state is BuildState.FAILED
        if has_failed or execution.progress.warnings:
            outcome, found = _diagnosed(prepared, workspace, control, execution, journal, cancel)
            again = retries.reason_to_retry(outcome, found) if has_failed else None
            if again is not None:
                journal.observer.note(f"trying again in {retries.delay_s:.0f} s: {again}")
                cancel.wait(retries.delay_s)
                cancel.raise_if_cancelled()
                trail.keep(
                    exit=None,
                    fetch_retries=retries.fetches,
                    has_set_aside=retries.has_set_aside,
                )
                continue
        if not cancel.is_cancelled and has_rebuilt(host, journal.record):
            reasons = why_rebuilt(
                host, journal.record, checkpoint.spec, str(prepared.layers.bitbake)
            )
            journal.note(rebuilt=reasons)
        return outcome


def _execute(
    host: Host, trail: Trail, control: Path, journal: Journal, cancel: CancelToken
) -> Execution:
    """One attempt: begun here, or by a process that died since."""
    checkpoint = trail.require()
    if checkpoint.exit is not None:
        if trail.is_resumed:
            with contextlib.suppress(EngineError):
                trail.remove_container(host.runtime)
        return recall(checkpoint.exit, control, is_overdue=checkpoint.is_overdue)

    def ended(execution: Execution) -> None:
        trail.keep(exit=execution.exit, is_overdue=execution.is_overdue)

    executor = Executor(host.runtime, host.clock, cancel)
    plan, progressed = checkpoint.plan, journal.observer.progressed
    running = trail.take_over(host.runtime) if trail.is_resumed else None
    if running is not None:
        return executor.rejoin(running, plan, control, progressed, ended)
    return executor.run(checkpoint.spec, plan, control, progressed, ended)


def _diagnosed(
    prepared: Preparation,
    workspace: Workspace,
    control: Path,
    execution: Execution,
    journal: Journal,
    cancel: CancelToken,
) -> tuple[Outcome, Sequence[Finding]]:
    """Keep what the logs say, and judge by it."""
    from smidr_ci.builds.diagnose import diagnose_build  # noqa: PLC0415 - only these builds pay

    diagnosis = diagnose_build(prepared, workspace, control, execution, cancel)
    diagnosis = at_its_target(prepared.request.project, diagnosis)
    outcome = judge(execution, cancel, diagnosis.findings)
    findings = diagnosis.findings
    if outcome.state is BuildState.COMPLETED:
        wanted = prepared.config.build.fail_on_warnings
        outcome, findings = judge_warnings(wanted, execution.progress.warnings, findings)
    journal.note(findings=tuple(asdict(finding) for finding in findings))
    return outcome, findings


def _keep_parse_cache(
    host: Host, prepared: Preparation, workspace: Workspace, execution: Execution
) -> None:
    if not prepared.request.is_trusted:
        return  # pickles, which are code for who loads them
    # A driver that was killed may have left BitBake in the middle of writing its cache.
    if execution.result is not None and not execution.result.oom_kills:
        for key, folder in prepared.parse_caches(workspace):
            host.parse_cache.save(key, folder, [str(path) for path in cache_files(folder)])


def _figures(progress: Progress) -> Mapping[str, object]:
    tasks = {
        "recipes": progress.recipes,
        "recipes_cached": progress.recipes_cached,
        "recipes_parsed": progress.recipes_parsed,
        "total": progress.tasks_total,
        "executed": progress.tasks_executed,
        "from_sstate": progress.tasks_from_sstate,
        "failed": len(progress.failures),
        "warnings": progress.warnings,
    }
    return {"tasks": tasks, "sstate": progress.sstate}
