"""The last phase of a job: reports are written, and all that the job names goes up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smidr_ci.builds.model import BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.files import as_host_error, make_private_dir
from smidr_ci.forges.gitlab.checkout import untracked_files
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.context import CONTAINER_DIRECTORY, in_project
from smidr_ci.forges.gitlab.jobpage import page_of
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.ports import JobLog, Outcome
from smidr_ci.forges.gitlab.reports import ARTIFACTS, CONSOLE, REPORTS, write_reports
from smidr_ci.forges.gitlab.provenance import Provenance, is_wanted
from smidr_ci.forges.gitlab.transport import Pause
from smidr_ci.forges.gitlab.uploads import Uploader
from smidr_ci.forges.gitlab.variables import expand, expand_text
from smidr_ci.layers.gitcmd import Git

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
    ) -> None:
        """Upload what fits the outcome; without anything to do there is no section.

        Raises the first failure after all entries were tried: `BuildFailedError` for what the
        project asks for in vain, `ForgeError` when the server did not take it, `CancelledError`.
        """
        wanted = {"always", "on_success" if outcome.succeeded else "on_failure"}
        if not any(entry.when in wanted for entry in job.artifacts):
            return
        word = "success" if outcome.succeeded else "failure"
        header = f"Uploading artifacts for {'successful' if outcome.succeeded else 'failed'} job"
        with log.section(f"upload_artifacts_on_{word}", header):
            scratch = self._scratch()
            try:
                overlays = self._overlays(job, directory, artifacts, outcome, scratch)
                uploader = self._uploader(job, directory, overlays, scratch, cancel, log)
                uploader.upload(succeeded=outcome.succeeded)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

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
