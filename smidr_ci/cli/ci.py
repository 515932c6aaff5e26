"""`smidr ci`: for a job of an ordinary CI runner that has smidr on its machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from smidr_ci.builds.ids import check_customer
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cli.build import carry_out, exit_code_of
from smidr_ci.cli.build_options import BuildOptions
from smidr_ci.cli.gitlab_sections import SectionWatcher
from smidr_ci.cli.output import ignoring_a_closed_pipe
from smidr_ci.cli.sources import artifacts_of, open_source
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.cli.watch import PlainWatcher, Watcher
from smidr_ci.clock import SystemClock
from smidr_ci.errors import SmidrError, UsageError
from smidr_ci.files import (
    MARKER_NAME,
    as_host_error,
    make_marked_dir,
    remove_marked_tree,
    write_atomic,
)
from smidr_ci.home import Home

__all__ = ["ci"]


@click.group()
def ci() -> None:
    """Build in a CI job, and leave reports where the CI system finds them."""


@ci.command()
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("smidr.yaml"),
    show_default=True,
    envvar="SMIDR_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="The project config, relative to the project's directory.",
)
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    envvar="SMIDR_TARGET",
    show_envvar=True,
    metavar="TARGET",
    help="Build this instead of the config's targets; several are parted by blanks.",
)
@click.option(
    "--customer", envvar="SMIDR_CUSTOMER", show_envvar=True, metavar="NAME", help="Whom it is for."
)
@click.option("--clean", is_flag=True, help="Carry over nothing but downloads and sstate.")
@click.option("--locked", is_flag=True, help="Refuse layers that smidr.lock does not pin.")
@click.option("--no-agent", is_flag=True, help="Build in this process, also when an agent runs.")
def build(
    config_path: Path,
    targets: tuple[str, ...],
    customer: str | None,
    clean: bool,
    locked: bool,
    no_agent: bool,
) -> int:
    """Build as the job's variables say; gitlab-template.yml runs this on GitLab.

    Reports are written to smidr-reports and what was built to smidr-artifacts, both below
    CI_PROJECT_DIR, or here when that is not set.
    """
    job = _Job.of(os.environ, config_path)
    job.clear()
    options = BuildOptions(
        config_path=job.project / config_path,
        targets=targets,
        customer=_customer(customer, os.environ),
        clean=clean,
        clean_image=False,
        fetch_only=False,
        locked=locked,
        keep=False,
    )
    home = Home.from_environment()
    try:
        record = carry_out(options, home, job.watcher(), no_agent=no_agent)
    except SmidrError as error:
        job.report(_unbuilt(options, error))
        raise
    job.report(record)
    if record.state is BuildState.COMPLETED:
        job.take_artifacts(artifacts_of(home, record), record)
    with ignoring_a_closed_pipe():
        print_summary(record, artifact_root=str(job.project / _ARTIFACTS))
        print_findings(record)
    return exit_code_of(record)


_REPORTS, _ARTIFACTS, _CONSOLE = "smidr-reports", "smidr-artifacts", "console.log"


@dataclass(frozen=True)
class _Job:
    project: Path
    environ: Mapping[str, str]
    config_path: Path

    @classmethod
    def of(cls, environ: Mapping[str, str], config_path: Path) -> _Job:
        project = Path(environ.get("CI_PROJECT_DIR") or Path.cwd()).absolute()
        if not project.is_dir():
            raise UsageError("CI_PROJECT_DIR is no directory", where=str(project))
        return cls(project, environ, config_path)

    def watcher(self) -> Watcher:
        clock = SystemClock()
        return SectionWatcher(clock) if self.environ.get("GITLAB_CI") else PlainWatcher(clock)

    def clear(self) -> None:
        """Take away what an earlier job left here."""
        for name in (_REPORTS, _ARTIFACTS):
            place = self.project / name
            is_ours = not place.is_symlink() and (place / MARKER_NAME).is_file()
            if os.path.lexists(place) and not is_ours:
                raise UsageError(
                    f"{name} is in the way: smidr writes there, and did not make it",
                    where=str(place),
                    hint="Rename it in the repository, or delete it.",
                )
            try:
                remove_marked_tree(place, self.project)
            except OSError as error:
                raise as_host_error(
                    error, "can't remove what an earlier job left", place
                ) from error

    def report(self, record: BuildRecord) -> None:
        """Write the report files and the whole console."""
        from smidr_ci.forges.gitlab.reports import JobPage, write_reports  # noqa: PLC0415 - not before the build

        environ = self.environ
        page = JobPage(
            job_url=environ.get("CI_JOB_URL", ""),
            project_url=environ.get("CI_PROJECT_URL", ""),
            sha=environ.get("CI_COMMIT_SHA", ""),
            config_path=str(self.config_path),
            directory=self.project,
        )
        folder = self.project / _REPORTS
        try:
            make_marked_dir(folder)
            write_reports(folder, record, page)
            if record.build_id:
                self._keep_console(folder / _CONSOLE, record.build_id)
        except OSError as error:
            raise as_host_error(error, "can't write the reports", folder) from error

    def _keep_console(self, target: Path, build_id: str) -> None:
        write_atomic(target, b"")
        with open_source() as source, target.open("r+b") as file:
            for _, chunk in source.logs(build_id, tail=None, follow=False):
                file.write(chunk)

    def take_artifacts(self, source: Path, record: BuildRecord) -> None:
        """Copy what the build left, for `artifacts:paths`."""
        from smidr_ci.artifacts.shelf import copy_artifacts  # noqa: PLC0415 - not before the build

        folder = self.project / _ARTIFACTS
        try:
            make_marked_dir(folder)
        except OSError as error:
            raise as_host_error(error, "can't copy the artifacts", folder) from error
        copy_artifacts(source.parent.parent, record.build_id, folder, customer=record.customer)


def _unbuilt(options: BuildOptions, error: SmidrError) -> BuildRecord:
    """A config that can't be read makes no build, and still a report."""
    now = SystemClock().now()
    return BuildRecord(
        build_id="",
        customer=options.customer,
        project=options.config_path.name,
        targets=options.targets,
        state=BuildState.FAILED,
        created=now,
        ended=now,
        failure_kind=error.kind,
        failure_message=str(error),
    )


def _customer(given: str | None, environ: Mapping[str, str]) -> str:
    """The project's name on GitLab, so that projects wait for their turns apart."""
    if given:
        return check_customer(given)
    try:
        return check_customer(environ.get("CI_PROJECT_PATH_SLUG", "")[:48].rstrip("-"))
    except SmidrError:
        return "default"
