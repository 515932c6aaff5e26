"""`smidr diagnose`: why a build failed, from its logs alone."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from smidr_ci.diagnosis.engine import diagnose as run_diagnosis
from smidr_ci.errors import UsageError
from smidr_ci.reports.formats import FORMATS

__all__ = ["diagnose"]


@click.command()
@click.argument("console_log", metavar="CONSOLE_LOG|-")
@click.option(
    "--task-log",
    "task_logs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A task's own log (log.do_compile and the like); may be given again.",
)
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The events.jsonl of a build that smidr ran.",
)
@click.option(
    "-f",
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="How to print the findings.",
)
def diagnose(
    console_log: str, task_logs: tuple[Path, ...], events: Path | None, format_name: str
) -> None:
    """Say which recipe and task failed, why, where to look and what to do.

    Reads any BitBake console log, also one that was made without smidr; `-` reads standard input.
    Exit code 0 says that the logs could be read, whatever was found in them.
    """
    source = sys.stdin.buffer if console_log == "-" else Path(console_log)
    try:
        diagnosis = run_diagnosis(source, events=events, task_logs=task_logs)
    except OSError as error:
        raise UsageError(
            f"can't read {error.filename or console_log}: {error.strerror or error}",
            hint="Name a regular file, or - for standard input.",
        ) from error
    rendered = FORMATS[format_name](diagnosis)
    sys.stdout.write(rendered.encode("utf-8", "replace").decode("utf-8"))
