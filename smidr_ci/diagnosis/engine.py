"""`diagnose`: logs and events in, findings out. Never raises for what a log contains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from smidr_ci.diagnosis.build import findings_of, name_skipped_target, warning_findings
from smidr_ci.diagnosis.collect import Collector
from smidr_ci.diagnosis.events import failed_tasks
from smidr_ci.diagnosis.locate import locate
from smidr_ci.diagnosis.model import Category, Diagnosis, DiagnosisContext
from smidr_ci.diagnosis.outside import apply_outside_facts
from smidr_ci.diagnosis.reader import LogReader
from smidr_ci.files import open_untrusted

__all__ = ["diagnose"]


def diagnose(
    console: BinaryIO | Path,
    *,
    events: Path | None = None,
    task_logs: Sequence[Path] = (),
    context: DiagnosisContext | None = None,
) -> Diagnosis:
    """Read the logs once each and say what failed and why.

    Memory does not grow with the logs. Files are opened without following symlinks; one that
    can't be read raises `OSError`.
    """
    context = context or DiagnosisContext()
    collector = Collector()
    with ExitStack() as stack:
        source = (
            stack.enter_context(open_untrusted(console)) if isinstance(console, Path) else console
        )
        collector.read(LogReader(source))
    if events is not None:
        for task in failed_tasks(events):
            collector.register.take_event(task)
    for path in task_logs:
        with open_untrusted(path) as stream:
            collector.read_task_log(LogReader(stream), str(path))
    collector.finish()
    return _conclude(collector, context)


def _conclude(collector: Collector, context: DiagnosisContext) -> Diagnosis:
    summary = collector.summary.result()
    is_success = summary.succeeded is True and context.exit_code in {None, 0}
    failures = [] if is_success else collector.register.all
    findings = findings_of(failures, collector.warnings, context)
    if len(findings) > 1:
        # An interrupt that follows a failure is somebody who had seen it.
        findings = [item for item in findings if item.category is not Category.CANCELLED]
    if collector.summary.is_finished:
        findings = [name_skipped_target(item) for item in findings]
    findings = apply_outside_facts(findings, context)
    known = {(item.recipe, item.message) for item in findings}
    warnings = warning_findings(collector.warnings, context)
    findings += [item for item in warnings if (item.recipe, item.message) not in known]
    return Diagnosis(tuple(locate(item, context) for item in findings), summary)
