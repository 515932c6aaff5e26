"""`smidr client`: builds on an agent, here or far away."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path

import click

from smidr_ci.api.client import AgentClient
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.views import record_as_dict, record_summary
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.cli.build import exit_code_of
from smidr_ci.cli.connection import Connection, connection_options
from smidr_ci.cli.follow import follow_build
from smidr_ci.cli.options import config_option, json_option
from smidr_ci.cli.output import human_size, print_columns, print_json
from smidr_ci.cli.records import print_log, print_records
from smidr_ci.cli.signals import cancel_on_signals
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.cli.watch import watcher_for
from smidr_ci.clock import SystemClock
from smidr_ci.errors import UsageError

__all__ = ["client"]

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,127})=(.*)", re.DOTALL)

build_id_option = click.option(
    "--build-id", required=True, metavar="ID", help="The build, or a unique beginning of its id."
)


@click.group()
def client() -> None:
    """Start and follow builds on an agent, here or far away.

    Without --address it is this user's agent on this host.
    """


@client.command()
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
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Show it until it is over.")
@click.option("--clean", is_flag=True, help="Carry over nothing but downloads and sstate.")
@click.option("--fresh", is_flag=True, help="Go on in no earlier build's directory.")
@click.option("--clean-image", is_flag=True, help="Pull or build the builder image again.")
@click.option(
    "--untrusted", is_flag=True, help="As a stranger's: private caches, none of the host's secrets."
)
@click.option(
    "-e",
    "--env",
    "variables",
    multiple=True,
    metavar="KEY=VALUE",
    help="A variable for ${KEY} in the config, for BitBake and for recipes; may be given again.",
)
@connection_options
@json_option
def start(
    config_path: Path,
    targets: tuple[str, ...],
    customer: str,
    is_followed: bool,
    clean: bool,
    fresh: bool,
    clean_image: bool,
    untrusted: bool,
    variables: tuple[str, ...],
    connection: Connection,
    as_json: bool,
) -> int:
    """Queue a build and print its id.

    To a far agent, local layers below the config's directory travel along. Prints one line `Build
    ID: ID` on standard output; with --follow all else goes to standard error, and the exit code is
    the build's.
    """
    from smidr_ci.cli.orders import make_request  # noqa: PLC0415 - only a start reads a config

    request = make_request(
        config_path,
        customer,
        targets,
        _variables(variables),
        clean=clean,
        fresh=fresh,
        clean_image=clean_image,
        is_untrusted=untrusted,
        is_local=connection.is_local,
    )
    with connection.open() as agent:
        record = agent.start(request)
        if as_json and not is_followed:
            print_json(record_as_dict(record))
        elif not as_json:
            click.echo(f"Build ID: {record.build_id}")
            sys.stdout.flush()
        if not is_followed:
            return 0
        final = _follow(agent, record)
    if as_json:
        print_json(record_as_dict(final))
    return exit_code_of(final)


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        match = _VARIABLE.fullmatch(text)
        if match is None:
            raise UsageError(f"{text[:60]!r} is no variable", hint="Write -e NAME=VALUE.")
        found[match[1]] = match[2]
    return found


def _follow(agent: AgentClient, record: BuildRecord) -> BuildRecord:
    cancel = CancelToken()
    watcher = watcher_for(sys.stderr, SystemClock())
    try:
        with cancel_on_signals(cancel, watcher.note):
            return follow_build(agent, record.build_id, watcher, cancel)
    finally:
        watcher.close()


@client.command()
@build_id_option
@connection_options
@json_option
def status(build_id: str, connection: Connection, as_json: bool) -> None:
    """Show one build."""
    with connection.open() as agent:
        record = agent.get(build_id)
    if as_json:
        print_json(record_as_dict(record))
    else:
        print_summary(record, artifact_root="the agent's store")
        print_findings(record)


@client.command()
@build_id_option
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the build ends.")
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, metavar="BYTES", help="Begin there."
)
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Begin N lines before the end."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object per line: offset and text."
)
@connection_options
def logs(
    build_id: str,
    is_followed: bool,
    offset: int,
    tail: int | None,
    as_json: bool,
    connection: Connection,
) -> None:
    """Print a build's console."""
    with connection.open() as agent:
        chunks = agent.logs(build_id, offset=offset, tail=tail, follow=is_followed)
        print_log(chunks, as_json=as_json)


@client.command(name="list")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Show so many.",
)
@click.option(
    "--state", type=click.Choice([str(state) for state in BuildState]), help="Only this state."
)
@click.option("--customer", metavar="NAME", help="Only builds of this customer.")
@click.option("--before", metavar="ID", help="Only builds older than this one: the next page.")
@connection_options
@json_option
def list_builds(
    limit: int,
    state: str | None,
    customer: str | None,
    before: str | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """List the agent's builds, the newest first."""
    with connection.open() as agent:
        wanted = BuildState(state) if state else None
        records = agent.list(limit=limit, state=wanted, customer=customer, before=before)
    if as_json:
        print_json({"builds": [record_summary(record) for record in records]})
    else:
        print_records(records)


@client.command()
@build_id_option
@click.option("--now", is_flag=True, help="Kill it, instead of letting running tasks finish.")
@connection_options
@json_option
def cancel(build_id: str, now: bool, connection: Connection, as_json: bool) -> None:
    """Stop a build; back when it is over."""
    with connection.open() as agent:
        record = agent.cancel(build_id, CancelLevel.KILL if now else CancelLevel.INTERRUPT)
        for view in agent.watch(record.build_id):
            record = view.record
    if as_json:
        print_json(record_as_dict(record))
    else:
        click.echo(f"{record.build_id} is {record.state}.")


@client.command()
@build_id_option
@connection_options
@json_option
def delete(build_id: str, connection: Connection, as_json: bool) -> None:
    """Hide a build that is over; purge removes it for good."""
    with connection.open() as agent:
        record = agent.get(build_id)
        agent.delete(record.build_id)
    if as_json:
        print_json({"deleted": record.build_id})
    else:
        click.echo(f"{record.build_id} is hidden.")


@client.command()
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Only what was hidden before this local time.",
)
@connection_options
@json_option
def purge(before: datetime | None, connection: Connection, as_json: bool) -> None:
    """Remove hidden builds for good, with their logs and artifacts."""
    with connection.open() as agent:
        gone = agent.purge(before.astimezone() if before else None)
    if as_json:
        print_json({"purged": list(gone)})
    else:
        click.echo("\n".join(gone) if gone else "Nothing was hidden.")


@client.group()
def artifacts() -> None:
    """What builds left."""


@artifacts.command(name="list")
@build_id_option
@connection_options
@json_option
def list_artifacts(build_id: str, connection: Connection, as_json: bool) -> None:
    """List a build's artifacts with sizes and SHA-256."""
    with connection.open() as agent:
        found = agent.artifacts(build_id)
    if as_json:
        names = ("path", "size_bytes", "sha256")
        rows = [{name: getattr(item, name) for name in names} for item in found]
        print_json({"artifacts": rows})
    else:
        print_columns((human_size(item.size_bytes), item.sha256, item.path) for item in found)


@artifacts.command()
@build_id_option
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="here",
    metavar="DIR",
    help="Directory to put them into.",
)
@connection_options
def download(build_id: str, paths: tuple[str, ...], output: Path, connection: Connection) -> None:
    """Bring artifacts here (default: all), checked by SHA-256; goes on where it stopped."""
    from smidr_ci.cli.downloads import download_all  # noqa: PLC0415 - only this needs it

    with connection.open() as agent:
        for target in download_all(agent, build_id, paths, output):
            click.echo(str(target))
