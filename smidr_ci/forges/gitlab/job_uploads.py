"""The last phase of a job: reports are written, and all that the job names goes up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import ArtifactRecord, BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.config.agent import AgentConfig
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.external import PlacedFile, opened_external, why_no_store
from smidr_ci.forges.gitlab.checkout import untracked_files
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import CONTAINER_DIRECTORY, in_project
from smidr_ci.forges.gitlab.elsewhere import Elsewhere
from smidr_ci.forges.gitlab.jobpage import page_of
from smidr_ci.forges.gitlab.payload import Artifact, Job
from smidr_ci.forges.gitlab.ports import JobLog, Outcome
from smidr_ci.forges.gitlab.provenance import Provenance, is_wanted
from smidr_ci.forges.gitlab.reports import (
    ANNOTATIONS,
    ARTIFACTS,
    CONSOLE,
    REPORTS,
    write_annotations,
    write_reports,
)
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.forges.gitlab.uploads import Uploader
from smidr_ci.forges.gitlab.variables import expand, expand_text
from smidr_ci.layers.gitcmd import Git
from smidr_ci.trust import Trust

__all__ = ["JobUploads"]


@dataclass(frozen=True)
class JobUploads:
    """Implements `ports.Uploads`.

    A build's own artifacts and its reports are seen in the project directory as `smidr-artifacts`
    and `smidr-reports`, without a copy and whatever the job put there.
    """

    client: RunnerClient
    scratch: Path
    """A directory on the host that no build sees."""
    record_of: Callable[[str], BuildRecord]
    """A build's record by its id."""
    previous_of: Callable[[BuildRecord], BuildRecord | None] = lambda _record: None
    console_of: Callable[[str], Path] | None = None
    """Where a build's whole console lies; it is seen as `smidr-reports/console.log`."""
    git: Git = field(default_factory=Git)
    agent: Callable[[], AgentConfig] = AgentConfig
    """The operator's settings as they are now."""
    trust_of: Callable[[Job], Trust] = lambda _job: Trust.UNTRUSTED
    """Of a job that came to no build."""
    clock: Clock = SystemClock()
    patience_s: float = 600.0
    pause: Pause | None = None

    def run(
        self,
        job: Job,
        directory: Path,
        artifacts: Path | None,
        outcome: Outcome,
        cancel: CancelToken,
        log: JobLog,
    ) -> Sequence[PlacedFile]:
        """Upload what fits the outcome; without anything to do there is no section.

        What went to the operator's store is returned, and named in the annotations report.
        Raises the first failure after all entries were tried: `BuildFailedError` for what the
        project asks for in vain, `ForgeError` when the server did not take it, `CancelledError`.
        """
        wanted = {"always", "on_success" if outcome.succeeded else "on_failure"}
        if not any(entry.when in wanted for entry in job.artifacts):
            return ()
        word = "success" if outcome.succeeded else "failure"
        header = f"Uploading artifacts for {'successful' if outcome.succeeded else 'failed'} job"
        with log.section(f"upload_artifacts_on_{word}", header):
            scratch = self._scratch()
            try:
                overlays = self._overlays(job, directory, artifacts, outcome, scratch)
                uploader = self._uploader(job, directory, overlays, scratch, cancel, log)
                return self._upload(uploader, outcome)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _upload(self, uploader: Uploader, outcome: Outcome) -> Sequence[PlacedFile]:
        job, agent = uploader.job, self.agent()
        record = self.record_of(outcome.build_id) if outcome.build_id else None
        trust = record.trust if record is not None else self.trust_of(job)
        settings = agent.artifacts.external_store
        placed: list[PlacedFile] = []

        def note(file: PlacedFile) -> None:
            placed.append(file)
            if record is not None:
                page = page_of(job, uploader.directory, placed)
                write_annotations(uploader.overlays[REPORTS], record, page)

        with opened_external(settings, _names(job, record), trust) as external:
            uploader = replace(
                uploader,
                largest_bytes=agent.gitlab.largest_artifact,
                why_not_elsewhere=why_no_store(settings, trust),
            )
            if external is not None:
                known = {f"{ARTIFACTS}/{item.path}": item for item in _artifacts_of(record)}
                elsewhere = Elsewhere(external, uploader.say, uploader.cancel, note, known)
                uploader = replace(uploader, job=_links_last(job), elsewhere=elsewhere)
            uploader.upload(succeeded=outcome.succeeded)
            if placed and record is not None and not _has_links(job):
                uploader = replace(uploader, job=replace(job, artifacts=(_LINKS,)))
                uploader.upload(succeeded=outcome.succeeded)
        return placed

    def _scratch(self) -> Path:
        try:
            make_private_dir(self.scratch)
            return Path(tempfile.mkdtemp(prefix="upload-", dir=self.scratch))
        except OSError as error:
            raise as_host_error(error, "can't pack the artifacts", self.scratch) from error

    def _overlays(
        self,
        job: Job,
        directory: Path,
        artifacts: Path | None,
        outcome: Outcome,
        scratch: Path,
    ) -> Mapping[str, Path]:
        if not outcome.build_id:
            return {}
        record = self.record_of(outcome.build_id)
        reports = scratch / "reports"
        try:
            reports.mkdir()
            write_reports(reports, record, page_of(job, directory), self.previous_of(record))
        except OSError as error:
            raise as_host_error(error, "can't write the reports", reports) from error
        overlays = {REPORTS: reports}
        if self.console_of is not None and (console := self.console_of(record.build_id)).is_file():
            overlays[f"{REPORTS}/{CONSOLE}"] = console
        if artifacts is not None and artifacts.is_dir():
            overlays[ARTIFACTS] = artifacts
        return overlays

    def _uploader(
        self,
        job: Job,
        directory: Path,
        overlays: Mapping[str, Path],
        scratch: Path,
        cancel: CancelToken,
        log: JobLog,
    ) -> Uploader:
        given = expand(job.variables)
        variables = {**given, "CI_PROJECT_DIR": str(CONTAINER_DIRECTORY)}
        provenance = Provenance(job, variables, scratch, self.clock, cancel)
        return Uploader(
            client=self.client,
            job=job,
            directory=directory,
            overlays=overlays,
            scratch=scratch,
            say=log,
            cancel=cancel,
            expand=lambda text: in_project(expand_text(text, variables)),
            untracked=lambda: untracked_files(
                directory, self.git, cancel, object_format=job.git_info.object_format
            ),
            level=variables.get("ARTIFACT_COMPRESSION_LEVEL", "default"),
            clock=self.clock,
            patience_s=self.patience_s,
            pause=self.pause,
            provenance=provenance if is_wanted(given) else None,
        )


_LINKS: Final = Artifact(
    name=ANNOTATIONS,
    paths=(f"{REPORTS}/{ANNOTATIONS}",),
    when="always",
    type="annotations",
    format="gzip",
)
"""GitLab's own entry for `artifacts:reports:annotations`, for jobs that have none."""


def _has_links(job: Job) -> bool:
    return any(entry.type == "annotations" for entry in job.artifacts)


def _links_last(job: Job) -> Job:
    """Links can be told once the files are where they lead."""
    order = sorted(job.artifacts, key=lambda entry: entry.type == "annotations")
    return replace(job, artifacts=tuple(order))


def _artifacts_of(record: BuildRecord | None) -> Sequence[ArtifactRecord]:
    return record.artifacts if record is not None else ()


def _names(job: Job, record: BuildRecord | None) -> tuple[str, ...]:
    if record is not None:
        return (record.customer, record.build_id)
    return ("gitlab", job.info.project_path or str(job.info.project_id), f"job-{job.id}")
