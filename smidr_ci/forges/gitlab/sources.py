"""A job's first phase: how far it is trusted is decided, and its sources come to their place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from smidr_ci.files import MARKER_NAME, as_host_error, make_marked_dir
from smidr_ci.forges.gitlab.hooks import run_post_hook, run_pre_hook
from smidr_ci.forges.gitlab.jobstore import Phase
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.payload import Job, Variable
from smidr_ci.forges.gitlab.trust import cache_owner, sharing_key
from smidr_ci.trust import Trust

__all__ = ["bring_sources", "owner_of", "with_exports"]


def bring_sources(job: OpenJob) -> None:
    """Fill the project's directory with all that the script needs; raises `SmidrError`.

    In GitLab's order: hooks around the checkout, caches, artifacts of earlier jobs. What was done
    before a restart is not done again.
    """
    if job.is_past(Phase.SOURCES):
        return
    if not job.state.project:
        _check_out(job)
    run_post_hook(job)
    _once(job, "caches", _restore_caches)
    _once(job, "dependencies", _fetch_dependencies)
    job.stops.job.raise_if_cancelled()


def _check_out(job: OpenJob) -> None:
    trust = job.state.trust or job.workshop.trust_of(job.context.job)
    job.save(phase=Phase.SOURCES, trust=str(trust))
    if job.trust is Trust.UNTRUSTED:
        job.joblog("This job is not trusted: its build can't change the host's caches.")
    directory = _directory(job)
    job.save(directory=str(directory))
    checkout = job.workshop.checkout(job.client)
    job.stops.job.raise_if_cancelled()
    run_pre_hook(job, checkout, directory)
    if job.workshop.scripts is not None:
        job.workshop.scripts.forget(job.id)
    project = checkout.run(job.context.job, directory, job.stops.job, job.joblog)
    job.stops.job.raise_if_cancelled()
    job.save(project=str(project))


def _once(job: OpenJob, step: str, bring: Callable[[OpenJob], bool]) -> None:
    if step in job.state.prepared:
        return
    if bring(job):
        job.workshop.give(job.project)
        job.save(prepared=(*job.state.prepared, step))


def _restore_caches(job: OpenJob) -> bool:
    caches, owner = job.workshop.caches, owner_of(job)
    if caches is None or not job.context.job.cache or not owner:
        return False
    return caches.restore(with_exports(job), owner, job.project, job.stops.job, job.joblog)


def _fetch_dependencies(job: OpenJob) -> bool:
    dependencies = job.workshop.dependencies
    if dependencies is None or not job.context.job.dependencies:
        return False
    return dependencies(job.client)(job.context.job, job.project, job.stops.job, job.joblog)


def owner_of(job: OpenJob) -> str:
    """Whose caches the job uses; decided by what the server says, not by variables."""
    return cache_owner(job.context.job, job.context.registration.url, job.trust)


def with_exports(job: OpenJob) -> Job:
    """The job with what its lines wrote to GITLAB_ENV among its variables.

    All but GitLab's own names, by which the job is known and trusted.
    """
    given, scripts = job.context.job, job.workshop.scripts
    exports = scripts.exports(job.folder.path) if scripts is not None else {}
    added = (
        Variable(name, value, is_raw=True)
        for name, value in exports.items()
        if not name.startswith("CI_")
    )
    return replace(given, variables=(*given.variables, *added))


def _directory(job: OpenJob) -> Path:
    """Kept for the project's next job: a fetch is quicker than a clone.

    Trusted jobs have their own, and untrusted ones one for each ref: nobody else's job has written
    into it.
    """
    registration, info = job.context.registration, job.context.job.info
    word = "trusted"
    if job.trust is not Trust.TRUSTED:
        key = sharing_key(job.context.job, registration.url)
        word = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = job.workshop.checkouts / f"{registration.name}-{info.project_id}-{word}-{job.state.slot}"
    try:
        make_marked_dir(path, mode=0o700)
        (path / MARKER_NAME).touch()  # tells when it was used last
    except OSError as error:
        raise as_host_error(error, "can't make the job's directory", path) from error
    return path
