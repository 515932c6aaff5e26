"""Where a job's script calls smidr, and with what: the build that the job asks for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import click

from smidr_ci.errors import ConfigError
from smidr_ci.forges.gitlab.variables import expand_text

__all__ = ["BuildCall", "JobScript", "read_script"]

_DEFAULT_CONFIG: Final = "smidr.yaml"
_SHELL_SIGNS: Final = frozenset(";&|<>()`")
_NO_CONFIG: Final = "this job names no smidr config, and that is all that this runner builds"
_NO_CONFIG_HINT: Final = (
    "Set the variable SMIDR_CONFIG to the path of the project's smidr.yaml, or write "
    "'smidr ci build -c smidr.yaml' as a line of its own in 'script'. For other jobs choose "
    "another runner with 'tags'."
)


@dataclass(frozen=True)
class BuildCall:
    """What `smidr ci build` was called with."""

    config: str
    """Relative to the project's directory."""
    targets: tuple[str, ...] = ()
    clean: bool = False
    clean_image: bool = False
    fetch_only: bool = False
    locked: bool = False
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class JobScript:
    """A job's script around the one build in it."""

    before: tuple[str, ...]
    call: str
    """The line that asks for the build."""
    build: BuildCall
    after: tuple[str, ...]


def read_script(lines: Sequence[str], variables: Mapping[str, str]) -> JobScript:
    """Find the build in a script; raises `ConfigError` when there is none, or more than one.

    A line of its own calls `smidr ci build` or `smidr build`. With SMIDR_CONFIG and without such
    a line the build comes after all lines.
    """
    calls = [(number, words) for number, line in enumerate(lines) if (words := _call_in(line))]
    if not calls:
        if not variables.get("SMIDR_CONFIG"):
            raise ConfigError(_NO_CONFIG, hint=_NO_CONFIG_HINT)
        return JobScript(tuple(lines), "smidr ci build", _build_of([], "", variables), ())
    if len(calls) > 1:
        raise ConfigError(
            "'script' calls smidr twice, and one job is one build",
            where=lines[calls[1][0]].strip()[:200],
            hint="Give the second call a job of its own.",
        )
    number, words = calls[0]
    build = _build_of(words[1:], lines[number], variables)
    call = lines[number].strip()
    return JobScript(tuple(lines[:number]), call, build, tuple(lines[number + 1 :]))


def _call_in(line: str) -> list[str] | None:
    """`["build", ...]` when the whole line is a call of smidr's build."""
    text = line.strip()
    if not text.startswith("smidr") or "\n" in text:
        return None
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return None
    starts = (["smidr", "ci", "build"], ["smidr", "build"])
    start = next((start for start in starts if words[: len(start)] == start), None)
    if start is None or any(sign in _SHELL_SIGNS for sign in text):
        return None
    return words[len(start) - 1 :]


_COMMAND: Final = click.Command(  # only its parser is used
    "smidr ci build",
    params=[
        click.Argument(["names"], nargs=-1),
        click.Option(["-c", "--config"], default=""),
        click.Option(["-t", "--target", "targets"], multiple=True),
        click.Option(["-e", "--env", "environment"], multiple=True),
        click.Option(["--clean"], is_flag=True),
        click.Option(["--clean-image"], is_flag=True),
        click.Option(["--fetch-only"], is_flag=True),
        click.Option(["--locked"], is_flag=True),
        click.Option(["--keep"], is_flag=True),
        click.Option(["--json", "as_json"], is_flag=True),
    ],
    add_help_option=False,
)


def _build_of(words: Sequence[str], line: str, variables: Mapping[str, str]) -> BuildCall:
    arguments = [expand_text(word, variables) for word in words]
    try:
        found = _COMMAND.make_context("smidr ci build", arguments).params
    except click.ClickException as error:
        _refuse(line, error.format_message())
    pairs = [item.partition("=") for item in found["environment"]]
    if any(not name or not sign for name, sign, _ in pairs):
        _refuse(line, "-e wants NAME=VALUE")
    named = (*found["names"], *found["targets"])
    return BuildCall(
        config=found["config"] or variables.get("SMIDR_CONFIG") or _DEFAULT_CONFIG,
        targets=named or tuple(variables.get("SMIDR_TARGET", "").replace(",", " ").split()),
        clean=found["clean"],
        clean_image=found["clean_image"],
        fetch_only=found["fetch_only"],
        locked=found["locked"],
        environment=tuple((name, value) for name, _, value in pairs),
    )


def _refuse(line: str, message: str) -> NoReturn:
    raise ConfigError(
        f"this runner can't read the call: {message}",
        where=line.strip()[:200],
        hint="'smidr build --help' shows the options.",
    )
