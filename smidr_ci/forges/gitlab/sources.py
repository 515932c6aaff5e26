"""A job's first phase: how far it is trusted is decided, and its sources come to their place."""

from __future__ import annotations

import hashlib
from pathlib import Path

from smidr_ci.files import MARKER_NAME, as_host_error, make_marked_dir
from smidr_ci.forges.gitlab.jobstore import Phase
from smidr_ci.forges.gitlab.openjob import OpenJob
from smidr_ci.forges.gitlab.trust import sharing_key
from smidr_ci.trust import Trust

__all__ = ["bring_sources"]


def bring_sources(job: OpenJob) -> None:
    """Fill the project's directory; nothing to do when that was done. Raises `SmidrError`."""
    if job.state.project:
        return
    trust = job.state.trust or job.workshop.trust_of(job.context.job)
    job.save(phase=Phase.SOURCES, trust=str(trust))
    if job.trust is Trust.UNTRUSTED:
        job.joblog("This job is not trusted: its build can't change the host's caches.")
    if job.workshop.scripts is not None:
        job.workshop.scripts.forget(job.id)
    directory = _directory(job)
    job.save(directory=str(directory))
    checkout = job.workshop.checkout(job.client)
    job.stops.job.raise_if_cancelled()
    project = checkout.run(job.context.job, directory, job.stops.job, job.joblog)
    job.stops.job.raise_if_cancelled()
    job.save(project=str(project))


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
