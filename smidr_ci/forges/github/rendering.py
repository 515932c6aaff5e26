"""A build as a check run shows it: state, title, summary, buttons, annotations.

Limits: docs.github.com, "Check runs": 65,535 for summary and text, 50 annotations in a request,
3 buttons with a label of 20, a description of 40 and an identifier of 20 characters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.diagnosis.model import Finding
from smidr_ci.errors import FailureKind
from smidr_ci.forges.github.targets import JOB_PAGE, CheckTarget
from smidr_ci.forges.github.texts import OUTPUT_BYTES, clip_bytes
from smidr_ci.forges.gitlab.reports import diagnosis_of
from smidr_ci.reports.escape import clip, inline
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.github import check_annotations
from smidr_ci.reports.markdown import render_markdown
from smidr_ci.reports.project_paths import in_project
from smidr_ci.reports.wording import headline
from smidr_ci.text import printable

__all__ = [
    "APPROVE",
    "PER_REQUEST",
    "RUN_AGAIN",
    "Action",
    "Button",
    "annotated",
    "annotation_list",
    "approval_body",
    "approved_body",
    "buttons",
    "check_body",
    "status_body",
]

PER_REQUEST: Final = 50
RUN_AGAIN: Final = "After the approval run the job again."
_MOST_ANNOTATIONS: Final = 500
_MESSAGE_BYTES: Final = 64_000
_TITLE: Final = 250
_CUT: Final = "\n\n*The rest was left out to fit GitHub's limit; the build's log has all of it.*\n"
_DESCRIPTION: Final = 140


class Action(StrEnum):
    """What a button asks for; GitHub sends it back as `requested_action.identifier`."""

    CANCEL = "cancel"
    REBUILD = "rebuild"
    REBUILD_CLEAN = "rebuild-clean"
    APPROVE = "approve"


@dataclass(frozen=True)
class Button:
    """A button on a check run."""

    label: str
    description: str
    identifier: str


_CANCEL: Final = Button("Cancel", "Stop this build", Action.CANCEL)
_REBUILD: Final = Button("Rebuild", "Build the same once more", Action.REBUILD)
_CLEAN: Final = Button("Rebuild clean", "Build it without shared state", Action.REBUILD_CLEAN)
APPROVE: Final = Button("Approve build", "Build this commit as untrusted", Action.APPROVE)


def buttons(candidates: Sequence[Button]) -> list[dict[str, str]]:
    """The first three, within GitHub's limits."""
    return [
        {
            "label": clip(item.label, 20),
            "description": clip(item.description, 40),
            "identifier": item.identifier[:20],
        }
        for item in candidates[:3]
    ]


def check_body(
    view: BuildView, target: CheckTarget, previous: BuildRecord | None = None
) -> dict[str, Any]:
    """What a request to create or update the check run holds, but for annotations."""
    record = view.record
    body: dict[str, Any] = {
        "name": target.name,
        "external_id": record.build_id,
        "status": _status(record.state),
        "output": _output(view, target, previous),
        "actions": buttons(_candidates(record, target)),
    }
    if target.details_url:
        body["details_url"] = target.details_url
    if record.started is not None:
        body["started_at"] = _iso(record.started)
    if record.state.is_final:
        body["conclusion"] = _conclusion(record)
        body["completed_at"] = _iso(record.ended or record.created)
    return body


def approval_body(
    target: CheckTarget,
    external_id: str,
    reason: str,
    now: datetime,
    afterwards: str = RUN_AGAIN,
) -> dict[str, Any]:
    """A check run that asks somebody with write access to let a stranger's commit build."""
    body: dict[str, Any] = {
        "name": target.name,
        "head_sha": target.head_sha,
        "external_id": external_id,
        "status": "completed",
        "conclusion": "action_required",
        "completed_at": _iso(now),
        "output": {
            "title": "Waiting for an approval",
            "summary": f"{inline(reason, 1000)}\n\nLook at the changes first: the build runs what "
            f"is in this commit. {afterwards}",
        },
        "actions": buttons([APPROVE]),
    }
    return body | ({"details_url": target.details_url} if target.details_url else {})


def approved_body(login: str, now: datetime) -> dict[str, Any]:
    """How that check run ends when somebody has."""
    said = f"{inline(login, 100)} approved this commit."
    output = {"title": "Approved", "summary": said}
    ended = {"conclusion": "success", "completed_at": _iso(now)}
    return {"status": "completed", **ended, "output": output, "actions": []}


def status_body(view: BuildView, target: CheckTarget) -> dict[str, str]:
    """The same as a commit status, for who may not write checks."""
    record = view.record
    states = {"success": "success", "failure": "failure", "timed_out": "failure"}
    state = states.get(_conclusion(record), "error") if record.state.is_final else "pending"
    body = {
        "state": state,
        "context": target.name,
        "description": clip(_title(view, target), _DESCRIPTION),
    }
    return body | ({"target_url": target.details_url} if target.details_url else {})


def annotated(record: BuildRecord, target: CheckTarget) -> list[int]:
    """Which findings become annotations, by their place in `diagnosis_of`.

    Settled once per build, so that it stays the same while requests are repeated. What lies in
    other repositories is told in the summary.
    """
    exists = _is_in(target.directory)
    found = [
        number
        for number, finding in enumerate(_placed(record, target))
        if _is_path(finding.repo_path)
        and (finding.repo_path == target.config_path or exists(finding.repo_path or ""))
    ]
    return found[:_MOST_ANNOTATIONS]


def annotation_list(
    record: BuildRecord, target: CheckTarget, chosen: Sequence[int]
) -> list[dict[str, Any]]:
    """The annotations of these findings, each within GitHub's limits."""
    findings = _placed(record, target)
    picked: list[Finding] = [findings[number] for number in chosen if number < len(findings)]
    made = [item for request in check_annotations(picked) for item in request]
    return [
        {
            **item,
            "title": clip(item["title"], _TITLE),
            "message": clip_bytes(item["message"], _MESSAGE_BYTES) or "(no message)",
            "raw_details": clip_bytes(item["raw_details"], _MESSAGE_BYTES),
        }
        for item in made
    ]


def _placed(record: BuildRecord, target: CheckTarget) -> Sequence[Finding]:
    """The findings with paths of the check's repository; None for files that lie elsewhere."""
    diagnosis = diagnosis_of(record, target.config_path)
    placed = in_project(diagnosis, record, target.config_path).findings
    own = {name for name, commit in record.layer_commits.items() if commit == target.head_sha}
    return [
        found if found.layer in own else moved
        for found, moved in zip(diagnosis.findings, placed, strict=True)
    ]


def _is_in(directory: str) -> Callable[[str], bool]:
    if not directory or not os.path.isdir(directory):
        return lambda _path: True
    return lambda path: os.path.lexists(os.path.join(directory, path))


def _is_path(path: str | None) -> bool:
    if not path or not path.isprintable() or len(path) > 4096:
        return False
    parts = PurePosixPath(path).parts
    return not path.startswith("/") and ".." not in parts


def _status(state: BuildState) -> str:
    if state.is_final:
        return "completed"
    return "queued" if state is BuildState.QUEUED else "in_progress"


def _conclusion(record: BuildRecord) -> str:
    if record.failure_kind is FailureKind.TIMEOUT:
        return "timed_out"
    if record.state is BuildState.COMPLETED:
        return "success"
    return "cancelled" if record.state is BuildState.CANCELLED else "failure"


def _candidates(record: BuildRecord, target: CheckTarget) -> list[Button]:
    if not record.state.is_final:
        return [_CANCEL]
    has_source = PurePosixPath(record.order.get("directory", "")).parts[-2:] == (
        record.build_id,
        "source",
    )
    if has_source:
        return [_REBUILD, _CLEAN]
    return [_REBUILD] if JOB_PAGE.match(target.details_url) else []


def _title(view: BuildView, target: CheckTarget) -> str:
    record = view.record
    if not record.state.is_final:
        what = ", ".join(record.targets) or record.project
        doing = {
            BuildState.QUEUED: f"Waiting: {view.waiting_for}" if view.waiting_for else "Waiting",
            BuildState.PREPARING: f"Preparing {what}",
            BuildState.BUILDING: f"Building {what}",
            BuildState.EXTRACTING: f"Collecting the artifacts of {what}",
        }
        return clip(printable(doing[record.state]), _TITLE)
    if record.state is BuildState.CANCELLED and record.failure_kind is not FailureKind.TIMEOUT:
        return clip(printable(f"Cancelled: {record.cancel_reason}".rstrip(": ")), _TITLE)
    said = headline(diagnosis_of(record, target.config_path))
    kind = record.failure_kind
    is_host = kind is not None and kind.is_infrastructure
    if is_host and record.failure_message:
        said = f"Build host: {record.failure_message.splitlines()[0]}"
    return clip(printable(said), _TITLE)


def _output(view: BuildView, target: CheckTarget, previous: BuildRecord | None) -> dict[str, str]:
    record = view.record
    if record.state.is_final:
        summary = render_markdown(
            diagnosis_of(record, target.config_path), facts_of(record, previous), limit=OUTPUT_BYTES
        )
    else:
        summary = _progress(view)
    return {
        "title": _title(view, target) or "Build",
        "summary": clip_bytes(summary, OUTPUT_BYTES, _CUT),
    }


def _progress(view: BuildView) -> str:
    record = view.record
    lines = [f"{inline(record.project)}: {inline(', '.join(record.targets))}", ""]
    if view.waiting_for:
        lines.append(inline(view.waiting_for))
    if view.progress is not None and record.state is BuildState.BUILDING:
        done, total = view.progress.tasks_completed, view.progress.tasks_total
        failed = f", {view.progress.tasks_failed} failed" if view.progress.tasks_failed else ""
        lines.append(f"{done} of {total} tasks{failed}")
    lines += [f"* {inline(note.text)}" for note in view.notes[-5:]]
    lines += ["", f"Build <code>{inline(record.build_id)}</code>, {record.trust}"]
    return "\n".join(lines)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
