"""`smidr init` and `smidr config`: write, check and show project configs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from smidr_ci.builds.host import load_project_config
from smidr_ci.cli.options import config_option, json_option
from smidr_ci.cli.output import print_json
from smidr_ci.config.resolve import resolved_yaml
from smidr_ci.config.schema import project_schema
from smidr_ci.config.starters import write_starter
from smidr_ci.home import Home

__all__ = ["config", "init"]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name of the project; default: the directory's name.")
@click.option(
    "--starter",
    type=click.Choice(["poky", "oe-core", "hello"]),
    default="poky",
    show_default=True,
    help="What to start from.",
)
def init(directory: Path, name: str | None, starter: str) -> None:
    """Write a commented smidr.yaml into DIRECTORY."""
    path = write_starter(directory, name or directory.resolve().name, starter)
    click.echo(f"Wrote {path}")
    click.echo(f"Next: cd {directory} && smidr config check && smidr build")


@click.group()
def config() -> None:
    """Check and show the project config."""


@config.command()
@config_option
@json_option
def check(config_path: Path, as_json: bool) -> None:
    """Say whether the config is right; every fault with file, line and remedy."""
    loaded = load_project_config(config_path, Home.from_environment(), os.environ)
    if as_json:
        print_json({"config": str(loaded.path), "valid": True})
    else:
        click.echo(f"{loaded.path}: valid")


@config.command()
@config_option
@json_option
def show(config_path: Path, as_json: bool) -> None:
    """Print the config as it is used: substituted, with defaults and older key names resolved."""
    loaded = load_project_config(config_path, Home.from_environment(), os.environ)
    if as_json:
        print_json(loaded.config.model_dump(mode="json"))
    else:
        click.echo(resolved_yaml(loaded), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON schema of smidr.yaml, for editors."""
    print_json(project_schema())
