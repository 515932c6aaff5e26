"""`smidr status`, `smidr logs` and `smidr list`: builds that run, and builds that were."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.logbook import LogReader, follow, lines_of, printable
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.reconcile import mark_interrupted_builds
from smidr_ci.builds.views import record_as_dict, record_summary
from smidr_ci.cli.options import customer_option, json_option, remember_format
from smidr_ci.cli.output import human_duration, local_time, print_columns, print_json
from smidr_ci.cli.summary import print_findings, print_summary
from smidr_ci.errors import UsageError

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
    host = Host.open()
    mark_interrupted_builds(host.store)
    record = _chosen(host, build_id, customer)
    if as_json or format_name == "json":
        print_json(record_as_dict(record))
    elif format_name == "markdown":
        from smidr_ci.reports.summary import render_summary  # noqa: PLC0415 - only this pays

        click.echo(render_summary(host, record), nl=False)
    else:
        print_summary(record, artifact_root=str(host.artifacts_of(record)))
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
    host = Host.open()
    mark_interrupted_builds(host.store)
    record = _chosen(host, build_id, customer)
    path = host.control_of(record.build_id) / CONTROL_FILES["console"]
    offset = 0
    if tail is not None:
        with LogReader(path) as reader:
            offset, _ = reader.tail(tail)

    def is_finished() -> bool:
        known = host.store.get(record.build_id)
        return known.state.is_final or not host.store.is_owned(record.build_id)

    chunks = follow(path, offset, is_finished if is_followed else lambda: True, host.clock.sleep)
    _print_log(chunks, as_json=as_json)


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
    host = Host.open()
    mark_interrupted_builds(host.store)
    records = host.store.list(
        limit=limit, customer=customer, state=BuildState(state) if state else None
    )
    if as_json:
        print_json({"builds": [record_summary(record) for record in records]})
    elif not records:
        click.echo("No builds yet.")
    else:
        header = ("BUILD", "STATE", "PROJECT", "BEGUN", "TOOK", "TARGETS")
        print_columns((_row(record) for record in records), header)


def _chosen(host: Host, build_id: str | None, customer: str | None) -> BuildRecord:
    if build_id:
        return host.store.get(build_id)
    newest = host.store.list(limit=1, customer=customer)
    if not newest:
        raise UsageError("there are no builds yet", hint="Start one with `smidr build`.")
    return host.store.get(newest[0].build_id)


def _row(record: BuildRecord) -> tuple[str, ...]:
    begun = record.started or record.created
    took = human_duration((record.ended - begun).total_seconds()) if record.ended else "-"
    state = str(record.state)
    if record.failure_kind and record.state is BuildState.FAILED:
        state = f"{state} ({record.failure_kind})"
    targets = ", ".join(record.targets)
    return record.build_id, state, record.project, local_time(begun), took, targets


def _print_log(chunks: Iterator[tuple[int, bytes]], *, as_json: bool) -> None:
    if as_json:
        for line_offset, line in _with_offsets(chunks):
            click.echo(json.dumps({"offset": line_offset, "text": line.decode(errors="replace")}))
    elif sys.stdout.isatty():
        for line in lines_of(chunk for _, chunk in chunks):
            click.echo(printable(line, colours=True))
    else:
        # Whoever pipes a log gets its bytes; only a terminal needs protection from them.
        for _, chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def _with_offsets(chunks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    rest, start = b"", 0
    for offset, chunk in chunks:
        if not rest:
            start = offset
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield start, line
            start += len(line) + 1
    if rest:
        yield start, rest
