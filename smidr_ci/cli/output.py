"""What the commands print: aligned columns, sizes and durations for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from smidr_ci.errors import SmidrError
from smidr_ci.text import printable

__all__ = [
    "human_duration",
    "human_size",
    "ignoring_a_closed_pipe",
    "local_time",
    "print_columns",
    "print_error",
    "print_json",
    "settle_streams",
]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def human_size(size_bytes: float) -> str:
    """Such as `12.3 MB`, in powers of 1000."""
    for unit in _UNITS[:-1]:
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} {_UNITS[-1]}"


def human_duration(seconds: float) -> str:
    """Such as `0.4 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def local_time(moment: datetime | None) -> str:
    """The user's own time, to the second; `-` for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "-"


@contextmanager
def ignoring_a_closed_pipe() -> Iterator[None]:
    """End the printing, not the program, when the reader of standard output has gone."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        settle_streams()


def settle_streams() -> None:
    """Flush both outputs; what a reader who has gone left in them goes nowhere.

    The interpreter would try to flush it at its end, and then exit with 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_columns(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Print rows as columns two blanks apart; the last column may be of any length."""
    table = [[printable(cell) for cell in row] for row in rows]
    if header is not None:
        table.insert(0, list(header))
    if not table:
        return
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())


def print_json(document: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print one document, readable and stable."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_error(error: SmidrError, *, as_json: bool) -> None:
    """Say what happened, where and what to do: on standard error, or as JSON on standard output."""
    if as_json:
        print_json(
            {
                "error": {
                    "kind": str(error.kind),
                    "message": error.message,
                    "where": error.where,
                    "hint": error.hint,
                }
            }
        )
        return
    click.echo(f"Error: {printable(str(error), keep_newlines=True)}", err=True)
