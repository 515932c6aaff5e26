"""Where a job's build shows on GitLab: addresses for its reports, notes and statuses."""

from __future__ import annotations

from pathlib import Path

from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.reports import JobPage
from smidr_ci.forges.gitlab.variables import expand

__all__ = ["page_of"]


def page_of(job: Job, directory: Path | None = None) -> JobPage:
    """The job's page; `directory` is the project's, for which files are in it."""
    variables = expand(job.variables)
    return JobPage(
        job_url=variables.get("CI_JOB_URL", ""),
        project_url=variables.get("CI_PROJECT_URL", ""),
        sha=job.git_info.sha,
        config_path=variables.get("SMIDR_CONFIG", "") or "smidr.yaml",
        directory=directory,
    )
