"""`smidr daemon`: the agent of this host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.addresses import INSECURE_HELP
from smidr_ci.builds.views import plain
from smidr_ci.cli.connection import Connection, connection_options
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import local_time, print_columns, print_json
from smidr_ci.forges.status import RegistrationStatus

__all__ = ["daemon", "start_options"]

_START_OPTIONS = (
    click.option(
        "--address", metavar="HOST:PORT", help="Where gRPC listens besides its unix socket."
    ),
    click.option("--http-address", metavar="HOST:PORT", help="The same for HTTP."),
    click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        metavar="FILE",
        help="The operator's settings; the default is agent.yaml in $SMIDR_HOME.",
    ),
    click.option("--insecure", is_flag=True, help=INSECURE_HELP),
)


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that becomes the agent."""
    for option in reversed(_START_OPTIONS):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@start_options
@click.pass_context
def daemon(ctx: click.Context, /, **options: object) -> None:
    """Run this host's agent, or talk to the one that runs.

    Without a subcommand it starts, see `smidr daemon start --help`.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(start, **options)
    elif any(options.values()):
        raise click.UsageError(f"give options behind the command: daemon {ctx.invoked_subcommand}")


@daemon.command()
@start_options
def start(
    address: str | None, http_address: str | None, config_path: Path | None, insecure: bool
) -> None:
    """Run the agent in the foreground, until it is told to stop.

    It goes on with the builds of an agent before it. SIGTERM ends it and leaves builds running for
    the next one, SIGQUIT ends it when they are over, SIGHUP reads agent.yaml again. It listens on
    unix sockets in $SMIDR_HOME for this user alone, and where else the options or agent.yaml say.
    """
    from smidr_ci.api.process import run_agent  # noqa: PLC0415 - only this command is the agent

    run_agent(
        address=address, http_address=http_address, settings=config_path, is_insecure=insecure
    )


@daemon.command()
@connection_options
@json_option
def status(connection: Connection, as_json: bool) -> None:
    """Show what the agent does and what keeps it from doing more."""
    with connection.open() as agent:
        found = agent.status()
    if as_json:
        print_json(plain(found))
    else:
        _print_status(found)


@daemon.command()
@click.option("--cancel-builds", is_flag=True, help="Cancel its builds first, also the queued.")
@connection_options
@json_option
def stop(cancel_builds: bool, connection: Connection, as_json: bool) -> None:
    """End the agent; what runs goes on, and the next agent takes it up."""
    with connection.open() as agent:
        agent.stop(cancel_builds=cancel_builds)
    _say("stopping", "The agent ends.", as_json=as_json)


@daemon.command()
@connection_options
@json_option
def drain(connection: Connection, as_json: bool) -> None:
    """Let the agent finish what runs, take nothing new, and end."""
    with connection.open() as agent:
        agent.drain()
    _say("draining", "The agent ends when what runs is over.", as_json=as_json)


def _say(state: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"state": state})
    else:
        click.echo(sentence)


def _print_status(found: AgentStatus) -> None:
    state = "drains" if found.is_draining else "takes builds"
    print_columns(
        [
            (
                "Agent",
                f"smidr {found.version}, process {found.pid}, since {local_time(found.started)}",
            ),
            ("State", state),
            ("Listens", ", ".join(found.listening) or "-"),
            ("Settings", found.settings.get("source", "-")),
            ("Running", _running(found)),
            *(("", build_id) for build_id in found.running),
            ("Queued", str(len(found.queued))),
            *(("", f"{build_id}: {why}") for build_id, why in found.queued.items()),
            *(("Problem", problem) for problem in found.problems),
            *(("Jobs from", _registration(item)) for item in found.registrations),
            *(
                (
                    "Outbox",
                    f"{item.receiver}: {item.waiting} waiting, {item.given_up} given up"
                    + (f" ({item.last_error})" if item.last_error else ""),
                )
                for item in found.outbox
            ),
        ]
    )


def _running(found: AgentStatus) -> str:
    count = len(found.running)
    if found.taken and found.taken < count:
        return f"{found.taken} of {found.max_running}, for {count} builds"
    return f"{count} of {found.max_running}"


def _registration(item: RegistrationStatus) -> str:
    jobs = f", {len(item.jobs)} jobs" if item.jobs else ""
    why = f" ({item.detail})" if item.detail else ""
    return f"{item.name} at {item.url}: {item.state}{why}{jobs}"
