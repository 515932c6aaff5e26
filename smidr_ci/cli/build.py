"""`smidr build`: one build in the foreground, by the running agent or in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from smidr_ci.api.local_client import find_agent
from smidr_ci.builds.ids import check_customer
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.views import record_as_dict
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.build_options import BuildOptions
from smidr_ci.cli.options import config_option, json_option
from smidr_ci.cli.output import ignoring_a_closed_pipe, print_json
from smidr_ci.cli.signals import cancel_on_signals
from smidr_ci.cli.sources import artifacts_of
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.cli.watch import Watcher, watcher_for
from smidr_ci.clock import SystemClock
from smidr_ci.errors import FailureKind
from smidr_ci.home import Home

__all__ = ["build", "carry_out", "exit_code_of"]


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
@click.option("--fresh", is_flag=True, help="Go on in no earlier build's directory.")
@click.option("--clean-image", is_flag=True, help="Pull or build the builder image again.")
@click.option("--fetch-only", is_flag=True, help="Fetch all sources of the targets, and stop.")
@click.option("--locked", is_flag=True, help="Refuse layers that smidr.lock does not pin.")
@click.option("--keep", is_flag=True, help="Keep the build directory also after success.")
@click.option(
    "--untrusted", is_flag=True, help="As a stranger's: private caches, none of the host's secrets."
)
@click.option("--no-agent", is_flag=True, help="Build in this process, also when an agent runs.")
@json_option
def build(
    config_path: Path,
    targets: tuple[str, ...],
    customer: str,
    clean: bool,
    fresh: bool,
    clean_image: bool,
    fetch_only: bool,
    locked: bool,
    keep: bool,
    untrusted: bool,
    no_agent: bool,
    as_json: bool,
) -> int:
    """Build what the project config says, in a container, with the host's shared caches.

    When an agent runs (`smidr daemon`) it takes the build into its queue, and goes on with it also
    when this command dies. Progress goes to standard error, the result to standard output. Ctrl-C
    once stops BitBake cleanly, twice kills it.
    """
    options = BuildOptions(
        config_path,
        targets,
        check_customer(customer),
        clean,
        clean_image,
        fetch_only,
        locked,
        keep,
        untrusted,
        fresh,
    )
    home = Home.from_environment()
    record = carry_out(options, home, watcher_for(sys.stderr, SystemClock()), no_agent=no_agent)
    with ignoring_a_closed_pipe():
        if as_json:
            print_json(record_as_dict(record))
        else:
            print_summary(record, artifact_root=str(artifacts_of(home, record)))
            print_findings(record)
    return exit_code_of(record)


def exit_code_of(record: BuildRecord) -> int:
    """The process exit code for a build's end (architecture, invariant 10)."""
    if record.state is BuildState.COMPLETED:
        return 0
    kind = record.failure_kind or FailureKind.BUILD
    return kind.exit_code


def carry_out(
    options: BuildOptions, home: Home, watcher: Watcher, *, no_agent: bool = False
) -> BuildRecord:
    """Have the build done by the agent that runs, else here; its final record.

    The watcher is closed at the end. Raises `SmidrError` when there can be no record.
    """
    agent = None if no_agent else find_agent(home)
    cancel = CancelToken()
    try:
        with cancel_on_signals(cancel, watcher.note):
            if agent is not None:
                from smidr_ci.cli.on_agent import build_on  # noqa: PLC0415 - one of two ways

                return build_on(agent, options, watcher, cancel)
            from smidr_ci.cli.in_process import build_here  # noqa: PLC0415 - as above

            return build_here(options, watcher, cancel)
    finally:
        watcher.close()
        if agent is not None:
            agent.close()
