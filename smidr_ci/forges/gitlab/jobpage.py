"""Where a job's build shows on GitLab: addresses for its reports, notes and statuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.reports import ARTIFACTS, JobPage
from smidr_ci.forges.gitlab.variables import expand
from smidr_ci.text import printable

__all__ = ["page_of"]


def page_of(job: Job, directory: Path | None = None, placed: Sequence[PlacedFile] = ()) -> JobPage:
    """The job's page; `directory` is the project's, for which files are in it.

    `placed` are files that GitLab did not take.
    """
    variables = expand(job.variables)
    return JobPage(
        job_url=variables.get("CI_JOB_URL", ""),
        project_url=variables.get("CI_PROJECT_URL", ""),
        sha=job.git_info.sha,
        config_path=variables.get("SMIDR_CONFIG", "") or "smidr.yaml",
        directory=directory,
        stored=tuple((_label(item), item.url) for item in placed),
    )


def _label(item: PlacedFile) -> str:
    """Without the directory that our own artifacts are seen in."""
    path = item.path.removeprefix(f"{ARTIFACTS}/")
    return printable(f"{path} ({item.size_bytes / 1e6:.1f} MB)")
