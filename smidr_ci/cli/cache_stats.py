"""`smidr cache stats`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import click

from smidr_ci.builds.cache_stats import CacheFacts, CacheStats, Reuse, cache_stats
from smidr_ci.builds.host import Host
from smidr_ci.builds.recipes import RecipeFacts
from smidr_ci.builds.uploads import share_facts
from smidr_ci.cli.cache_push import print_share, share_as_dict
from smidr_ci.cli.options import json_option
from smidr_ci.cli.output import human_duration, human_size, print_columns, print_json
from smidr_ci.cli.signals import stoppable
from smidr_ci.files import as_host_error

__all__ = ["stats"]

_WORK_COLUMNS = ("TASKS RAN FOR", "SPARED")
_RECIPE_COLUMNS = ("RECIPE", "BUILT", "RESTORED", "TASKS TAKE", "LAST BUILT")
_ABOUT_TIMES = (
    "Times of tasks are added up as if one ran after the other. What was spared is an estimate:\n"
    "what the restored recipes' tasks took when they last ran on this host, less the unpacking."
)


@click.command()
@click.option("--full", is_flag=True, help="Look at every file anew, for its last use.")
@click.option(
    "--last",
    type=click.IntRange(1, 500),
    default=20,
    show_default=True,
    metavar="N",
    help="Show the reuse over so many builds of each project.",
)
@click.option(
    "--recipes",
    type=click.IntRange(0, 20_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Show so many recipes, those on which most time was spent or spared.",
)
@json_option
def stats(full: bool, last: int, recipes: int, as_json: bool) -> None:
    """Show sizes, last uses, limits and free disk, what builds took from sstate, and uploads."""
    host = Host.open()
    try:
        with stoppable() as cancel:
            found = cache_stats(host, full=full, last=last, recipes=recipes, cancel=cancel)
            share = share_facts(host, cancel)
    except OSError as error:
        raise as_host_error(error, "can't look into the caches", host.home.root) from error
    if as_json:
        print_json({**_stats_as_dict(found), "share": share_as_dict(share)})
        return
    header = ("CACHE", "SIZE", "FILES", "LAST USES", "LIMITS", "DISK FREE", "PATH")
    print_columns((_cache_row(item) for item in found.caches), header)
    if found.reuse:
        click.echo()
        columns = ("PROJECT", "BUILDS", "REUSED", "LAST", "TASKS NOT RUN", "TOOK", *_WORK_COLUMNS)
        print_columns((_reuse_row(item) for item in found.reuse), columns)
    if found.recipes:
        click.echo()
        print_columns((_recipe_row(item) for item in found.recipes), _RECIPE_COLUMNS)
    if found.reuse or found.recipes:
        click.echo(f"\n{_ABOUT_TIMES}")
    if share is not None:
        click.echo()
        print_share(share)


def _stats_as_dict(found: CacheStats) -> dict[str, object]:
    return {
        "caches": [
            {key: _plain(value) for key, value in asdict(item).items()} for item in found.caches
        ],
        "reuse": [asdict(item) for item in found.reuse],
        "recipes": [
            {key: _plain(value) for key, value in asdict(item).items()} | {"total_s": item.total_s}
            for item in found.recipes
        ],
    }


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _cache_row(item: CacheFacts) -> tuple[str, ...]:
    files = str(item.files) if item.objects is None else f"{item.files} ({item.objects})"
    uses = "-"
    if item.oldest_use and item.newest_use:
        uses = f"{item.oldest_use:%Y-%m-%d} to {item.newest_use:%Y-%m-%d}"
    limits = [human_size(item.max_size)] if item.max_size is not None else []
    limits += [f"{item.max_age_days:g} days"] if item.max_age_days is not None else []
    share = 100 * item.free_bytes // max(item.disk_bytes, 1)
    free = f"{human_size(item.free_bytes)} ({share} %)"
    return (
        item.name,
        human_size(item.size_bytes),
        files,
        uses,
        ", ".join(limits) or "none",
        free,
        item.path,
    )


def _reuse_row(item: Reuse) -> tuple[str, ...]:
    percent = 100 * item.found // max(item.wanted, 1)
    reused = f"{item.found} of {item.wanted} ({percent} %)"
    spared = f"{item.tasks - item.executed} of {item.tasks}"
    took = f"{human_duration(item.shortest_s)} to {human_duration(item.longest_s)}"
    name = f"{item.customer}/{item.project}"
    last = f"{item.last_percent} %"
    ran = human_duration(item.executed_s)
    estimate = f"about {human_duration(item.spared_s)}" if item.timed else "not known"
    if 0 < item.timed < item.restored:
        estimate = f"about {human_duration(item.spared_s)} or more"
    return name, str(item.builds), reused, last, spared, took, ran, estimate


def _recipe_row(item: RecipeFacts) -> tuple[str, ...]:
    built = f"{item.last_built:%Y-%m-%d}" if item.last_built else "never here"
    took = human_duration(item.total_s) if item.times else "not known"
    return item.recipe, str(item.built), str(item.restored), took, built
