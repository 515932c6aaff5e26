"""The `smidr` command: finds the subcommand, and turns every failure into a message and a code."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import click

from smidr_ci import __version__
from smidr_ci.cli.options import CliState
from smidr_ci.cli.output import ignoring_a_closed_pipe, print_error, settle_streams
from smidr_ci.errors import FailureKind, InternalError, SmidrError, UsageError

__all__ = ["main", "run", "smidr"]

_COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "init": "smidr_ci.cli.config:init",
        "config": "smidr_ci.cli.config:config",
        "lock": "smidr_ci.cli.lock:lock",
        "build": "smidr_ci.cli.build:build",
        "ci": "smidr_ci.cli.ci:ci",
        "status": "smidr_ci.cli.history:status",
        "logs": "smidr_ci.cli.history:logs",
        "list": "smidr_ci.cli.history:list_builds",
        "artifacts": "smidr_ci.cli.artifacts:artifacts",
        "cache": "smidr_ci.cli.cache:cache",
        "shell": "smidr_ci.cli.shell:shell",
        "diagnose": "smidr_ci.cli.diagnose:diagnose",
        "daemon": "smidr_ci.cli.daemon:daemon",
        "runner": "smidr_ci.cli.runner:runner",
        "client": "smidr_ci.cli.client:client",
        "token": "smidr_ci.cli.token:token",
        "doctor": "smidr_ci.cli.doctor:doctor",
    }
)


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it is asked for: a start costs what it uses."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order of the user's work, not of the alphabet."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="smidr")
def smidr() -> None:
    """Build Yocto images with BitBake in containers, with caches that builds share.

    State and caches lie under $SMIDR_HOME (default ~/.smidr). Exit codes: 0 done, 1 build failed,
    2 usage or config, 3 layers, 4 container engine or host, 5 forge, 6 internal, 130 cancelled.
    """


def run(arguments: Sequence[str], state: CliState) -> int:
    """Run one command line; raises `SmidrError` for what the user must be told."""
    before = sys.stdout
    try:
        result = smidr.main(
            args=list(arguments), prog_name="smidr", standalone_mode=False, obj=state
        )
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        if sys.stdout is before:
            raise
        # click has wrapped a standard output that is closed, and would make that a failure.
        raise BrokenPipeError from stop
    except click.Abort:
        return FailureKind.CANCELLED.exit_code
    except click.ClickException as error:
        if state.as_json or "--json" in arguments:
            state.as_json = True
            hint = "smidr --help, and --help after any command, say what there is."
            raise UsageError(error.format_message(), hint=hint) from error
        error.show()
        return FailureKind.USAGE.exit_code
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point: the only place that exits the process."""
    state = CliState()
    try:
        code = 0
        with ignoring_a_closed_pipe():
            code = run(sys.argv[1:], state)
    except SmidrError as error:
        print_error(error, as_json=state.as_json)
        code = error.kind.exit_code
    except KeyboardInterrupt:
        code = FailureKind.CANCELLED.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort of the program
        traceback.print_exc()
        print_error(_unexpected(error), as_json=state.as_json)
        code = FailureKind.INTERNAL.exit_code
    settle_streams()
    sys.exit(code)


def _unexpected(error: Exception) -> InternalError:
    return InternalError(
        f"unexpected {type(error).__name__}",
        hint="This is a fault of smidr's own: please report it with the traceback above.",
    )
