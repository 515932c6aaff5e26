"""`smidr status`, `smidr logs` and `smidr list`: builds that run, and builds that were."""

from __future__ import annotations

import click

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.views import record_as_dict, record_summary
from smidr_ci.cli.options import customer_option, json_option, remember_format
from smidr_ci.cli.output import print_json
from smidr_ci.cli.records import print_log, print_records
from smidr_ci.cli.sources import artifacts_of, newest, open_source
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.home import Home

__all__ = ["list_builds", "logs", "status"]


@click.command()
@click.argument("build_id", metavar="[BUILD]", required=False)
@customer_option
@click.option(
    "-f",
    "--format",
    "format_name",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    callback=remember_format,
    help="How to print it; markdown also says what differs from the build before.",
)
@json_option
def status(build_id: str | None, customer: str | None, format_name: str, as_json: bool) -> None:
    """Show one build: the newest, or the one whose id begins with BUILD."""
    with open_source() as source:
        record = newest(source, build_id, customer)
        waiting_for = source.waiting_for(record)
    if as_json or format_name == "json":
        print_json({**record_as_dict(record), "waiting_for": waiting_for})
    elif format_name == "markdown":
        from smidr_ci.builds.host import Host  # noqa: PLC0415 - only this form needs all of it
        from smidr_ci.reports.summary import render_summary  # noqa: PLC0415 - as above

        click.echo(render_summary(Host.open(), record), nl=False)
    else:
        root = artifacts_of(Home.from_environment(), record)
        print_summary(record, artifact_root=str(root), waiting_for=waiting_for)
        print_findings(record)


@click.command()
@click.argument("build_id", metavar="[BUILD]", required=False)
@customer_option
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the build ends.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="N", help="Begin N lines before the end."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object per line: offset and text."
)
def logs(
    build_id: str | None, customer: str | None, is_followed: bool, tail: int | None, as_json: bool
) -> None:
    """Print the console of a build: the newest, or the one whose id begins with BUILD."""
    with open_source() as source:
        record = newest(source, build_id, customer)
        print_log(source.logs(record.build_id, tail=tail, follow=is_followed), as_json=as_json)


@click.command(name="list")
@customer_option
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    metavar="N",
    help="Show so many.",
)
@click.option(
    "--state", type=click.Choice([str(state) for state in BuildState]), help="Only this state."
)
@json_option
def list_builds(customer: str | None, limit: int, state: str | None, as_json: bool) -> None:
    """List builds, the newest first."""
    wanted = BuildState(state) if state else None
    with open_source() as source:
        records = source.list(limit=limit, customer=customer, state=wanted)
    if as_json:
        print_json({"builds": [record_summary(record) for record in records]})
    else:
        print_records(records)
