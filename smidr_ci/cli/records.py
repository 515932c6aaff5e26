"""Builds as a table, and a console as text or JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

import click

from smidr_ci.builds.logbook import lines_of, printable
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cli.output import human_duration, local_time, print_columns

__all__ = ["print_log", "print_records"]


def print_records(records: Sequence[BuildRecord]) -> None:
    """A line per build."""
    if not records:
        click.echo("No builds yet.")
        return
    header = ("BUILD", "STATE", "PROJECT", "BEGUN", "TOOK", "TARGETS")
    print_columns((_row(record) for record in records), header)


def _row(record: BuildRecord) -> tuple[str, ...]:
    begun = record.started or record.created
    took = human_duration((record.ended - begun).total_seconds()) if record.ended else "-"
    state = str(record.state)
    if record.failure_kind and record.state is BuildState.FAILED:
        state = f"{state} ({record.failure_kind})"
    targets = ", ".join(record.targets)
    return record.build_id, state, record.project, local_time(begun), took, targets


def print_log(chunks: Iterator[tuple[int, bytes]], *, as_json: bool) -> None:
    """The chunks of a log, with their offsets, as they come."""
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
