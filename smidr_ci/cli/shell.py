"""`smidr shell`: the container of a build, by hand."""

from __future__ import annotations

from pathlib import Path

import click

from smidr_ci.builds.host import Host
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.shell import request_of, run_shell
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.options import config_option
from smidr_ci.text import printable

__all__ = ["shell"]


@click.command(context_settings={"ignore_unknown_options": True})
@config_option
@click.option(
    "--build", "build_id", metavar="BUILD", help="Use the kept build directory of this build."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(config_path: Path, build_id: str | None, command: tuple[str, ...]) -> int:
    """Run COMMAND (default: a shell) in the container, environment and mounts of a build.

    BitBake is on the PATH and the build directory is the current one: try `bitbake -e`. Without
    --build the directory is fresh, and goes when the command ends. Ends with the command's code.
    """
    host = Host.open()

    def note(text: str) -> None:
        click.echo(printable(text), err=True)

    cancel = CancelToken()
    record = host.store.get(build_id) if build_id else None
    request = request_of(host, record) if record else BuildRequest(project=host.load(config_path))
    return run_shell(host, request, record, command, cancel, note)
