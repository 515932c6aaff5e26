"""Options that several commands share, and the state that `main` needs from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

__all__ = ["CliState", "config_option", "customer_option", "json_option", "remember_format"]

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass
class CliState:
    """What the outermost function must know of the command that ran."""

    as_json: bool = False


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    state = ctx.find_object(CliState)
    if state is not None and value:
        state.as_json = True
    return value


def remember_format(ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """The callback of a `--format`: `json` counts as `--json`, also for errors."""
    _remember_json(ctx, _param, value == "json")
    return value


def json_option(command: Command) -> Command:
    """Add `--json`: one JSON document on standard output, errors included."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=_remember_json,
        help="Print one JSON document on standard output.",
    )(command)


def config_option(command: Command) -> Command:
    """Add `-c/--config FILE`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=True),
        default=Path("smidr.yaml"),
        show_default=True,
        metavar="FILE",
        help="The project config.",
    )(command)


def customer_option(command: Command) -> Command:
    """Add `--customer NAME`."""
    return click.option(
        "--customer", default=None, metavar="NAME", help="Only builds of this customer."
    )(command)
