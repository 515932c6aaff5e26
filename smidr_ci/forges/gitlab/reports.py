"""A build's results as the report files that GitLab shows on job pages and merge requests.

Formats: GitLab docs, "GitLab CI/CD artifacts reports types".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.diagnosis.model import Category, Diagnosis, Finding, Severity, Summary
from smidr_ci.files import as_host_error, write_atomic
from smidr_ci.reports.codequality import render_codequality
from smidr_ci.reports.escape import clip
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.junit import render_junit
from smidr_ci.reports.markdown import render_markdown
from smidr_ci.reports.project_paths import in_project
from smidr_ci.reports.wording import place_of, title_of
from smidr_ci.text import printable

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = [
    "ANNOTATIONS",
    "ARTIFACTS",
    "CODE_QUALITY",
    "CONSOLE",
    "JUNIT",
    "METRICS",
    "REPORTS",
    "SUMMARY",
    "JobPage",
    "diagnosis_of",
    "write_annotations",
    "write_reports",
]

REPORTS: Final = "smidr-reports"
"""Directory below the project's that `artifacts:reports` names."""
ARTIFACTS: Final = "smidr-artifacts"
"""Directory below the project's in which `artifacts:paths` finds what the build left."""
CODE_QUALITY: Final = "gl-code-quality-report.json"
JUNIT: Final = "junit.xml"
ANNOTATIONS: Final = "gl-annotations.json"
METRICS: Final = "metrics.txt"
SUMMARY: Final = "summary.md"
CONSOLE: Final = "console.log"
"""All that BitBake said; whoever has it puts it there."""

_LINKS: Final = 30
_FILES: Final = 200
_STAMP: Final = re.compile(r"[-._]?(?<!\d)20\d{12}(?!\d)")


@dataclass(frozen=True)
class JobPage:
    """Addresses and paths of the job that a build belongs to; all may be empty."""

    job_url: str = ""
    """CI_JOB_URL."""
    project_url: str = ""
    """CI_PROJECT_URL."""
    sha: str = ""
    config_path: str = "smidr.yaml"
    """Relative to the project; where findings without a file are shown."""
    directory: Path | None = None
    """The project's files, to tell which findings are in them."""
    links: tuple[tuple[str, str], ...] = ()
    """More labels and URLs for the job's page."""
    stored: tuple[tuple[str, str], ...] = ()
    """Labels and URLs of files that GitLab did not take; a URL is empty where readers have none."""


def write_reports(
    folder: Path, record: BuildRecord, page: JobPage, previous: BuildRecord | None = None
) -> None:
    """Write all files into an existing directory of ours; raises `OSError`."""
    diagnosis = diagnosis_of(record, page.config_path)
    placed = in_project(diagnosis, record, page.config_path)
    name = f"{record.project}: {', '.join(record.targets)}"
    texts = {
        CODE_QUALITY: render_codequality(placed, default_path=page.config_path),
        JUNIT: render_junit(placed, suite=printable(name)),
        ANNOTATIONS: render_annotations(record, placed, page),
        METRICS: render_metrics(record),
        SUMMARY: render_markdown(diagnosis, facts_of(record, previous)),
    }
    for file_name, text in texts.items():
        write_atomic(folder / file_name, text)


def write_annotations(folder: Path, record: BuildRecord, page: JobPage) -> None:
    """Write the links anew, beside the other reports; raises `HostError`."""
    placed = in_project(diagnosis_of(record, page.config_path), record, page.config_path)
    path = folder / ANNOTATIONS
    try:
        write_atomic(path, render_annotations(record, placed, page))
    except OSError as error:
        raise as_host_error(error, "can't write the reports", path) from error


def diagnosis_of(record: BuildRecord, config_path: str = "smidr.yaml") -> Diagnosis:
    """The record's findings; a failure that no log tells of is a finding of its own."""
    findings = tuple(Finding.from_dict(item) for item in record.findings)
    is_told = any(finding.severity is Severity.ERROR for finding in findings)
    if record.state is BuildState.FAILED and not is_told:
        lines = record.failure_message.splitlines() or [f"failed: {record.failure_kind}"]
        own = Finding(
            category=Category.OTHER,
            severity=Severity.ERROR,
            message=clip(lines[0], 1000),
            hint=clip(" ".join(line.strip() for line in lines[1:]), 1000),
            repo_path=config_path,
            line=_line_in(lines[0], config_path),
            fingerprint=f"smidr-{record.failure_kind}-{record.project}",
        )
        findings = (own, *findings)
    return Diagnosis(findings, Summary(succeeded=record.state is BuildState.COMPLETED))


def _line_in(message: str, config_path: str) -> int | None:
    """The line that an error of the config begins with: `path:line:column: text`."""
    found = re.match(rf"\S*{re.escape(config_path)}:(\d{{1,9}})\b", message)
    return int(found[1]) if found else None


def render_annotations(record: BuildRecord, diagnosis: Diagnosis, page: JobPage) -> str:
    """GitLab's annotations report: names of sections with external links."""
    sections = {
        "Findings": _finding_links(diagnosis, page),
        # What GitLab did not take has no page there.
        "Images": list(page.stored) or _image_links(record, page),
        "Build": [*_summary_link(page), *page.links],
    }
    shown = {
        name: [{"external_link": {"label": clip(label, 250), "url": url}} for label, url in links]
        for name, found in sections.items()
        if (links := [item for item in found if _is_url(item[1])])
    }
    return json.dumps(shown, indent=1) + "\n"


def _finding_links(diagnosis: Diagnosis, page: JobPage) -> list[tuple[str, str]]:
    if not page.project_url or not page.sha:
        return []
    links = []
    for finding in diagnosis.findings[:_LINKS]:
        if finding.repo_path and _is_of_project(finding.repo_path, page):
            line = f"#L{finding.line}" if finding.line else ""
            url = f"{page.project_url}/-/blob/{page.sha}/{quote(finding.repo_path)}{line}"
            links.append((printable(f"{title_of(finding)} ({place_of(finding)})"), url))
    return links


def _is_of_project(path: str, page: JobPage) -> bool:
    """Files of other layers lie in other repositories."""
    parts = path.split("/")
    is_inside = not path.startswith("/") and ".." not in parts and "\0" not in path
    return is_inside and page.directory is not None and os.path.lexists(page.directory / path)


def _image_links(record: BuildRecord, page: JobPage) -> list[tuple[str, str]]:
    if not page.job_url:
        return []
    base = f"{page.job_url}/artifacts/file/{ARTIFACTS}"
    biggest = sorted(record.artifacts, key=lambda item: item.size_bytes, reverse=True)
    return [
        (printable(f"{item.path} ({item.size_bytes / 1e6:.1f} MB)"), f"{base}/{quote(item.path)}")
        for item in biggest[:_LINKS]
    ]


def _summary_link(page: JobPage) -> list[tuple[str, str]]:
    if not page.job_url:
        return []
    return [("Summary", f"{page.job_url}/artifacts/file/{REPORTS}/{SUMMARY}")]


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_clean = url.isprintable() and " " not in url
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and is_clean


def render_metrics(record: BuildRecord) -> str:
    """OpenMetrics: build and stage times, tasks, reuse of shared state, sizes of artifacts."""
    from prometheus_client.core import CollectorRegistry  # noqa: PLC0415 - slow to import
    from prometheus_client.openmetrics.exposition import generate_latest  # noqa: PLC0415 - same

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(record))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # it has no types
    return text.decode()


class _Figures:
    """What prometheus-client calls a collector."""

    def __init__(self, record: BuildRecord) -> None:
        self._record = record

    def collect(self) -> Iterator[Metric]:
        record = self._record
        begun = record.started or record.created
        if record.ended is not None:
            seconds = (record.ended - begun).total_seconds()
            yield _gauge("smidr_build_seconds", "Time from start to end", [((), seconds)])
        stages = dict.fromkeys(((stage.name,) for stage in record.stages), 0.0)
        for stage in record.stages:  # one that was retried is there twice
            if stage.ended is not None:
                stages[(stage.name,)] += (stage.ended - stage.started).total_seconds()
        stage_times = list(stages.items())
        yield _gauge("smidr_stage_seconds", "Time of each stage", stage_times, ("stage",))
        tasks = [((name,), float(count)) for name, count in record.tasks.items()]
        yield _gauge("smidr_tasks", "Tasks and recipes, by what was done", tasks, ("result",))
        sstate = record.sstate
        if sstate is not None and sstate.wanted:
            reused = (sstate.local + sstate.mirrors) / sstate.wanted
            yield _gauge("smidr_sstate_reuse_ratio", "Part of the objects", [((), reused)])
        if record.work is not None:
            times = [(("executed",), record.work.executed_s), (("spared",), record.work.spared_s)]
            text = "Time of tasks, and an estimate of that of tasks which shared state spared"
            yield _gauge("smidr_task_seconds", text, times, ("result",))
        yield _gauge("smidr_artifact_bytes", "Size of each file", _sizes(record), ("file",))
        findings = [((), float(len(record.findings)))]
        yield _gauge("smidr_findings", "Diagnosed problems", findings)


def _sizes(record: BuildRecord) -> list[tuple[tuple[str, ...], float]]:
    # Without the time of the build, or the next one's files would all be new.
    sizes: dict[tuple[str, ...], float] = {}
    for item in record.artifacts[:_FILES]:
        sizes[(printable(_STAMP.sub("", item.path)),)] = float(item.size_bytes)
    return list(sizes.items())


def _gauge(
    name: str,
    text: str,
    values: Sequence[tuple[tuple[str, ...], float]],
    labels: tuple[str, ...] = (),
) -> Metric:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - slow to import

    family = GaugeMetricFamily(name, text, labels=labels)
    for own, value in values:
        family.add_metric(own, value)
    return family
