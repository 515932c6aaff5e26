"""A build in the command's own process: it ends with it."""

from __future__ import annotations

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.build_options import BuildOptions, user_name
from smidr_ci.cli.watch import Watcher

__all__ = ["build_here"]


def build_here(options: BuildOptions, watcher: Watcher, cancel: CancelToken) -> BuildRecord:
    """Run the build to its end; raises `SmidrError` when there can be no record."""
    host = Host.open()
    request = BuildRequest(
        project=host.load(options.config_path),
        targets=options.targets,
        customer=options.customer,
        clean=options.clean,
        clean_image=options.clean_image,
        fetch_only=options.fetch_only,
        locked=options.locked,
        keep_workspace=options.keep,
        requested_by=user_name(),
    )
    host.engine.warm_up()  # while git is waited for
    record = run_build(host, request, cancel, watcher)
    from smidr_ci.reports.summary import write_summary  # noqa: PLC0415 - not before the build

    write_summary(host, record)
    return record
