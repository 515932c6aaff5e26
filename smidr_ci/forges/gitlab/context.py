"""A job as this runner sees it: its variables with the runner's own, and what must not be shown."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from smidr_ci import __version__
from smidr_ci.forges.gitlab.features import runner_info
from smidr_ci.forges.gitlab.payload import Job, Variable
from smidr_ci.forges.gitlab.variables import JobVariables, expand
from smidr_ci.forges.registration import Registration, short_token

__all__ = [
    "CONTAINER_DIRECTORY",
    "FILE_DIRECTORY",
    "JobContext",
    "context_of",
    "in_project",
    "variables_of",
]

CONTAINER_DIRECTORY: Final = Path("/smidr/src")
"""Where lines of a script find the checkout."""
FILE_DIRECTORY: Final = CONTAINER_DIRECTORY.with_suffix(".tmp")
"""Where they find file variables."""


@dataclass(frozen=True)
class JobContext:
    """One job of one registration."""

    registration: Registration
    job: Job
    """With the runner's own variables before and after the job's."""
    variables: JobVariables
    secrets: tuple[str, ...] = field(repr=False)
    """What the trace must not show."""

    def flag(self, name: str, *, default: bool) -> bool:
        """A feature flag `FF_...` of the job."""
        return self.variables.flag(name, default=default)

    @property
    def title(self) -> str:
        """The job in a few words, for history and logs."""
        info = self.job.info
        return f"job {self.job.id} of {info.project_path or info.project_name} ({info.name})"


def context_of(
    registration: Registration, job: Job, *, slot: int = 0, tls: tuple[Variable, ...] = ()
) -> JobContext:
    """The job in this runner's context; `tls` are the variables for TLS files, if any."""
    own = _variables_before(registration, job, slot)
    after = _variables_after()
    whole = replace(job, variables=(*own, *tls, *job.variables, *after))
    variables = variables_of(whole)
    return JobContext(registration, whole, variables, _secrets(registration, job, variables))


def variables_of(job: Job) -> JobVariables:
    """The job's variables as its script sees them."""
    return expand(job.variables, file_directory=FILE_DIRECTORY)


def in_project(text: str) -> str:
    """A path as the job's lines see it becomes relative to the project; any other text stays."""
    inside = str(CONTAINER_DIRECTORY)
    is_inside = text == inside or text.startswith(f"{inside}/")
    return text.removeprefix(inside).lstrip("/") or "." if is_inside else text


def _variables_before(registration: Registration, job: Job, slot: int) -> tuple[Variable, ...]:
    values = {
        "CI_RUNNER_SHORT_TOKEN": short_token(registration.token),
        "CI_BUILDS_DIR": str(CONTAINER_DIRECTORY.parent),
        "CI_PROJECT_DIR": str(CONTAINER_DIRECTORY),
        "CI_CONCURRENT_ID": str(slot),
        "CI_CONCURRENT_PROJECT_ID": str(slot),
        "CI_SERVER": "yes",
        "CI_JOB_STATUS": "running",
        "CI_JOB_TIMEOUT": str(job.timeout_s),
    }
    return tuple(Variable(key, value, is_public=True, is_raw=True) for key, value in values.items())


def _variables_after() -> tuple[Variable, ...]:
    values = {
        "CI_SHARED_ENVIRONMENT": "true",
        "CI_RUNNER_VERSION": __version__,
        "CI_RUNNER_REVISION": "",
        "CI_RUNNER_EXECUTABLE_ARCH": f"{platform.system().lower()}/{runner_info()['architecture']}",
    }
    return tuple(Variable(key, value, is_public=True, is_raw=True) for key, value in values.items())


def _secrets(registration: Registration, job: Job, variables: JobVariables) -> tuple[str, ...]:
    found = [*variables.secrets, registration.token, job.token]
    found += [login.password for login in job.credentials]
    found += [dependency.token for dependency in job.dependencies]
    found.append(_password(job.git_info.repo_url))
    return tuple(dict.fromkeys(secret for secret in found if secret.strip()))


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""
