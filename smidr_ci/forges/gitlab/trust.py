"""How far a job is trusted, and with whom it may share: by what the server says alone.

Variables don't count, since a job's own may replace the server's. They only can lower it.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from smidr_ci.config.gitlab import GitLabSettings
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.trust import Trust

__all__ = ["cache_owner", "merge_request_of", "ref_of", "sharing_key", "trust_of"]

_MERGE_REQUEST: Final = re.compile(r"refs/merge-requests/([1-9]\d{0,17})/(?:head|merge|train)")
_SOURCE: Final = "CI_MERGE_REQUEST_SOURCE_PROJECT_ID"


def trust_of(job: Job, settings: GitLabSettings) -> Trust:
    """Trusted when its ref is, in a project that may have trusted jobs, and it is no fork's."""
    is_known = any(
        fnmatchcase(job.info.project_path, pattern) for pattern in settings.trusted_projects
    )
    is_ref_trusted = {
        "none": False,
        "protected": job.git_info.is_protected is True,
        "project": True,
    }[settings.trusted_refs]
    if is_known and is_ref_trusted and not _is_from_fork(job):
        return Trust.TRUSTED
    return Trust.UNTRUSTED


def _is_from_fork(job: Job) -> bool:
    """Whether any variable says so: the server sends its own first, and later ones besides."""
    own = str(job.info.project_id)
    told = {item.value for item in job.variables if item.key == _SOURCE}
    if told:
        return told != {own}
    # A merge request whose source the server does not tell might be anybody's.
    return merge_request_of(job) is not None


def merge_request_of(job: Job) -> int | None:
    """The number of the merge request whose pipeline the job belongs to."""
    found = _MERGE_REQUEST.fullmatch(job.git_info.ref)
    return int(found[1]) if found else None


def ref_of(job: Job) -> str:
    """The whole name of what is built, such as `refs/heads/main`."""
    ref = job.git_info.ref
    if not ref or ref.startswith("refs/merge-requests/"):
        return ref
    return f"refs/tags/{ref}" if job.git_info.ref_type == "tag" else f"refs/heads/{ref}"


def sharing_key(job: Job, url: str) -> str:
    """Untrusted jobs with the same key may use what each other left: those of one ref."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return f"gitlab:{host}/{job.info.project_id}@{ref_of(job)}"


def cache_owner(job: Job, url: str, trust: Trust) -> str:
    """Jobs of the same owner may use what each other kept with `cache:`; empty for no owner.

    It is the project with a word on trust, as GitLab keeps protected refs apart: trusted jobs, jobs
    of the project's own refs, and each ref of merge requests that come from somewhere else.
    """
    server = urlsplit(url)
    host = f"{server.netloc.rpartition('@')[2]}{server.path}".rstrip("/")
    project = str(job.info.project_id or job.info.project_path)
    if not project:
        return ""
    group = "trusted"
    if trust is not Trust.TRUSTED:
        group = f"fork,{ref_of(job)}" if _is_from_fork(job) else "untrusted"
    return f"{host},{project},{group}"
