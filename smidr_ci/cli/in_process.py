"""A build in the command's own process: it ends with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smidr_ci.builds.accept import request_for
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import Order
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.build_options import BuildOptions, ref_of, user_name
from smidr_ci.cli.on_agent import for_strangers, variables_in
from smidr_ci.cli.watch import Watcher
from smidr_ci.config.reading import read_config_text
from smidr_ci.trust import Trust

__all__ = ["build_here"]


def _request(host: Host, options: BuildOptions) -> BuildRequest:
    if options.is_untrusted:
        path = options.config_path
        text = read_config_text(path, hint_if_missing="Write one with: smidr init NAME")
        return request_for(host, _order(options, path, text, host.environ))
    return BuildRequest(
        project=host.load(options.config_path),
        targets=options.targets,
        customer=options.customer,
        clean=options.clean,
        fresh=options.is_fresh,
        ref=ref_of(host.environ),
        clean_image=options.clean_image,
        fetch_only=options.fetch_only,
        locked=options.locked,
        keep_workspace=options.keep,
        requested_by=user_name(),
    )


def _order(options: BuildOptions, path: Path, text: str, environ: Mapping[str, str]) -> Order:
    """What a forge would order of a stranger's config."""
    return Order(
        customer=options.customer,
        config_text=text,
        config_name=str(path),
        directory=path.parent.absolute(),
        targets=options.targets,
        clean=options.clean,
        fresh=options.is_fresh,
        clean_image=options.clean_image,
        fetch_only=options.fetch_only,
        locked=options.locked,
        keep_workspace=options.keep,
        variables=for_strangers(variables_in(text, environ)),
        requested_by=user_name(),
        trust=Trust.UNTRUSTED,
    )


def build_here(options: BuildOptions, watcher: Watcher, cancel: CancelToken) -> BuildRecord:
    """Run the build to its end; raises `SmidrError` when there can be no record."""
    host = Host.open()
    request = _request(host, options)
    host.engine.warm_up()  # while git is waited for
    record = run_build(host, request, cancel, watcher)
    from smidr_ci.reports.summary import write_summary  # noqa: PLC0415 - not before the build

    write_summary(host, record)
    return record
