"""`smidr build`: one build in the foreground."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

import click

from smidr_ci.builds.host import Host
from smidr_ci.builds.ids import check_customer
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.views import record_as_dict
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.options import config_option, json_option
from smidr_ci.cli.output import ignoring_a_closed_pipe, print_json
from smidr_ci.cli.signals import cancel_on_signals
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.cli.watch import watcher_for
from smidr_ci.errors import FailureKind

__all__ = ["build", "exit_code_of"]


@click.command()
@config_option
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Build this instead of the config's targets; may be given again.",
)
@click.option(
    "--customer", default="default", show_default=True, metavar="NAME", help="Whom it is for."
)
@click.option("--clean", is_flag=True, help="Carry over nothing but downloads and sstate.")
@click.option("--clean-image", is_flag=True, help="Pull or build the builder image again.")
@click.option("--fetch-only", is_flag=True, help="Fetch all sources of the targets, and stop.")
@click.option("--locked", is_flag=True, help="Refuse layers that smidr.lock does not pin.")
@click.option("--keep", is_flag=True, help="Keep the build directory also after success.")
@json_option
def build(
    config_path: Path,
    targets: tuple[str, ...],
    customer: str,
    clean: bool,
    clean_image: bool,
    fetch_only: bool,
    locked: bool,
    keep: bool,
    as_json: bool,
) -> int:
    """Build what the project config says, in a container, with the host's shared caches.

    Progress goes to standard error, the result to standard output. Ctrl-C once stops BitBake
    cleanly, twice kills it.
    """
    host = Host.open()
    request = BuildRequest(
        project=host.load(config_path),
        targets=targets,
        customer=check_customer(customer),
        clean=clean,
        clean_image=clean_image,
        fetch_only=fetch_only,
        locked=locked,
        keep_workspace=keep,
        requested_by=_user_name(),
    )
    host.engine.warm_up()  # while git is waited for
    record = _run(host, request)
    from smidr_ci.reports.summary import write_summary  # noqa: PLC0415 - not before the build

    write_summary(host, record)
    with ignoring_a_closed_pipe():
        if as_json:
            print_json(record_as_dict(record))
        else:
            print_summary(record, artifact_root=str(host.artifacts_of(record)))
            print_findings(record)
    return exit_code_of(record)


def exit_code_of(record: BuildRecord) -> int:
    """The process exit code for a build's end (architecture, invariant 10)."""
    if record.state is BuildState.COMPLETED:
        return 0
    kind = record.failure_kind or FailureKind.BUILD
    return kind.exit_code


def _run(host: Host, request: BuildRequest) -> BuildRecord:
    cancel = CancelToken()
    watcher = watcher_for(sys.stderr, host.clock)
    try:
        with cancel_on_signals(cancel, watcher.note):
            return run_build(host, request, cancel, watcher)
    finally:
        watcher.close()


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
