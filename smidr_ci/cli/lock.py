"""`smidr lock`: pin every layer to a commit."""

from __future__ import annotations

from pathlib import Path

import click

from smidr_ci.builds.host import Host
from smidr_ci.builds.places import places_for
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.options import config_option, json_option
from smidr_ci.cli.output import print_columns, print_json
from smidr_ci.cli.signals import cancel_on_signals
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.layers.lockfile import LOCK_NAME, make_lock, read_lock, write_lock

__all__ = ["lock"]


@click.command()
@config_option
@click.option("--update", is_flag=True, help="Ask for the newest commit of every branch again.")
@json_option
def lock(config_path: Path, update: bool, as_json: bool) -> None:
    """Write smidr.lock: the commit of every layer, for builds that can be repeated.

    Commits that are pinned already stay, unless --update is given or their URL or ref changed.
    """
    host = Host.open()
    project = host.load(config_path)
    config = with_provider_layers(project.config)
    path = project.directory / LOCK_NAME
    cancel = CancelToken()

    def note(text: str) -> None:
        click.echo(text, err=True)

    with cancel_on_signals(cancel, note):
        resolved = host.layer_store(places_for(project, host.agent, host.home)).resolve(
            [entry for entry in config.layers if entry.git],
            lock=None if update else read_lock(path),
            series=config.yocto_series,
            report=note,
            cancel=cancel,
        )
    entries = [one.lock_entry for one in resolved]
    write_lock(path, make_lock(entries))
    if as_json:
        layers = {item.name: {"git": item.git, "commit": item.commit} for item in entries}
        print_json({"lockfile": str(path), "layers": layers})
    else:
        print_columns((item.name, item.ref, item.commit) for item in entries)
        click.echo(f"Wrote {path}")
