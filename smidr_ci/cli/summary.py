"""The short table at the end of a build, and what `smidr status` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import click

from smidr_ci.builds.model import BuildRecord, BuildState, SstateSummary, StageRecord
from smidr_ci.builds.reasons import reason_sentence
from smidr_ci.builds.worth import work_sentence
from smidr_ci.cli.output import human_duration, human_size, print_columns
from smidr_ci.errors import FailureKind
from smidr_ci.text import printable
from smidr_ci.trust import Trust

__all__ = ["print_findings", "print_summary"]

_ARTIFACTS_SHOWN = 20
_FINDINGS_SHOWN = 5
_TOLD_BY_FINDINGS = frozenset({FailureKind.BUILD, FailureKind.FETCH, FailureKind.DISK})


def print_summary(record: BuildRecord, *, artifact_root: str, waiting_for: str = "") -> None:
    """Print result, stages, figures and artifacts of a build, then why it failed."""
    rows = list(_rows(record))
    if waiting_for:
        rows.append(("Waits", waiting_for))
    print_columns(rows)
    if record.artifacts:
        _print_artifacts(record, artifact_root)
    _print_failure(record)


def _rows(record: BuildRecord) -> Iterator[tuple[str, str]]:
    yield "Build", f"{record.build_id}  ({record.project}: {', '.join(record.targets)})"
    if record.description.strip():
        yield "About", record.description.strip().splitlines()[0]
    yield "Result", _result(record)
    if record.trust is Trust.UNTRUSTED:
        yield "Trust", "untrusted: read the shared caches at most, saw no secret of the host"
    if record.stages:
        yield "Stages", ", ".join(_stage(stage) for stage in record.stages)
    if record.warm_from:
        yield "Workspace", f"warm, after build {record.warm_from}"
    if record.shared_run:
        yield "Shared", f"built once for several that waited together, as {record.shared_run}"
    yield from _figures(record)


def _figures(record: BuildRecord) -> Iterator[tuple[str, str]]:
    tasks = record.tasks
    if tasks.get("recipes"):
        yield "Recipes", _recipes(tasks)
    if "total" in tasks:
        yield "Tasks", _tasks(tasks)
    figures = record.sstate
    if figures is not None:
        yield "Sstate", _sstate(figures)
    if record.work is not None:
        yield "Cost", work_sentence(record.work)
    for reason in record.rebuilt:
        yield "Ran again", reason_sentence(reason)
    if tasks.get("warnings"):
        yield "Warnings", str(tasks["warnings"])


def _recipes(tasks: Mapping[str, int]) -> str:
    if not tasks.get("recipes_parsed"):
        return f"{tasks['recipes']}, all from the parse cache"
    return (
        f"{tasks['recipes_parsed']} parsed, {tasks.get('recipes_cached', 0)} from the parse cache"
    )


def _tasks(tasks: Mapping[str, int]) -> str:
    done = {"executed": "executed", "from_sstate": "restored from sstate", "failed": "failed"}
    return f"{tasks['total']}: " + ", ".join(
        f"{tasks.get(name, 0)} {text}" for name, text in done.items()
    )


def _sstate(figures: SstateSummary) -> str:
    found = figures.local + figures.mirrors
    share = f" ({100 * found // figures.wanted} %)" if figures.wanted else ""
    return (
        f"{found} of {figures.wanted} objects reused{share}, {figures.mirrors} from mirrors,"
        f" {figures.missed} missed"
    )


def _result(record: BuildRecord) -> str:
    begun, ended = record.started or record.created, record.ended or datetime.now(UTC)
    took = human_duration((ended - begun).total_seconds())
    if not record.state.is_final:
        return f"{record.state}, for {took} so far"
    if record.state is BuildState.FAILED and record.failure_kind:
        return f"failed ({record.failure_kind}) after {took}"
    return f"{record.state} {'after' if record.state is BuildState.CANCELLED else 'in'} {took}"


def _stage(stage: StageRecord) -> str:
    ended = stage.ended or datetime.now(UTC)
    return f"{stage.name} {human_duration((ended - stage.started).total_seconds())}"


def _print_artifacts(record: BuildRecord, artifact_root: str) -> None:
    total = sum(artifact.size_bytes for artifact in record.artifacts)
    click.echo(f"Artifacts  {len(record.artifacts)} files, {human_size(total)}, in {artifact_root}")
    shown = record.artifacts[:_ARTIFACTS_SHOWN]
    print_columns([(f"  {human_size(item.size_bytes):>10}", item.path) for item in shown])
    if len(record.artifacts) > len(shown):
        click.echo(
            f"  and {len(record.artifacts) - len(shown)} more:"
            f" smidr artifacts show {record.build_id}"
        )


def _print_failure(record: BuildRecord) -> None:
    if record.state is not BuildState.FAILED:
        return
    if not record.findings or record.failure_kind not in _TOLD_BY_FINDINGS:
        click.echo(printable(f"Why        {record.failure_message}", keep_newlines=True))
    if record.workspace:
        click.echo(f"Directory  {record.workspace} (smidr shell --build {record.build_id})")
    if any(stage.name == BuildState.BUILDING for stage in record.stages):
        click.echo(f"Log        smidr logs {record.build_id}")


def print_findings(record: BuildRecord) -> None:
    """Print the diagnosis of a failed build, the cause first."""
    for finding in record.findings[:_FINDINGS_SHOWN]:
        place = ":".join(part for part in (finding.get("recipe"), finding.get("task")) if part)
        click.echo()
        click.echo(printable(f"{finding['severity']}: {finding['category']}  {place}".rstrip()))
        click.echo(printable(f"  {finding['message']}"))
        if finding.get("file"):
            line = f":{finding['line']}" if finding.get("line") else ""
            click.echo(printable(f"  in {finding['file']}{line}"))
        if finding.get("hint"):
            click.echo(printable(f"  {finding['hint']}"))
    more = len(record.findings) - _FINDINGS_SHOWN
    if more > 0:
        click.echo(f"\nand {more} more: smidr status {record.build_id} --json")
