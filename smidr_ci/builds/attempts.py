"""Run BitBake in a workspace, again when the failure's kind says that it may pass."""

from __future__ import annotations

from collections.abc import Mapping

from smidr_ci.bitbake.parse_cache import cache_files
from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.blame import at_its_target
from smidr_ci.builds.execute import Execution, Executor
from smidr_ci.builds.host import Host
from smidr_ci.builds.journal import Journal
from smidr_ci.builds.model import BuildState, SstateFigures
from smidr_ci.builds.outcome import Outcome, judge
from smidr_ci.builds.preparation import Preparation, furnish
from smidr_ci.builds.retry import Retries
from smidr_ci.cancel import CancelToken
from smidr_ci.workspaces.model import Workspace

__all__ = ["run_attempts"]


def run_attempts(
    host: Host, prepared: Preparation, workspace: Workspace, journal: Journal, cancel: CancelToken
) -> Outcome:
    """Build until it succeeds, fails for good or is cancelled; the record holds the findings."""
    control = host.control_of(journal.record.build_id)
    spec, plan = furnish(host, prepared, workspace, control)
    journal.enter(BuildState.BUILDING)
    executor = Executor(host.runtime, host.clock, cancel)
    retries = Retries(prepared.places.sstate)
    while True:
        execution = executor.run(spec, plan, control, journal.observer.progressed)
        _keep_parse_cache(host, prepared, workspace, execution)
        journal.note(**_figures(execution.progress))
        outcome = judge(execution, cancel, ())
        if outcome.state is not BuildState.FAILED:
            return outcome
        from smidr_ci.builds.diagnose import diagnose_build  # noqa: PLC0415 - only a failure pays

        diagnosis = diagnose_build(prepared, workspace, control, execution, cancel)
        diagnosis = at_its_target(prepared.request.project, diagnosis)
        journal.note(findings=tuple(diagnosis.to_dict()["findings"]))
        outcome = judge(execution, cancel, diagnosis.findings)
        reason = retries.reason_to_retry(outcome, diagnosis.findings)
        if reason is None:
            return outcome
        journal.observer.note(f"trying again in {retries.delay_s:.0f} s: {reason}")
        cancel.wait(retries.delay_s)
        cancel.raise_if_cancelled()
        (control / CONTROL_FILES["result"]).unlink(missing_ok=True)


def _keep_parse_cache(
    host: Host, prepared: Preparation, workspace: Workspace, execution: Execution
) -> None:
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
    }
    sstate = progress.sstate
    figures = None
    if sstate is not None:
        figures = SstateFigures(
            sstate.wanted, sstate.local, sstate.mirrors, sstate.missed, sstate.current
        )
    return {"tasks": tasks, "sstate": figures}
