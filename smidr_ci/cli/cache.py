"""`smidr cache`: what the caches hold, what goes of them, and whether they are whole."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import TypeVar

import click

from smidr_ci.builds.cache_stats import index_of
from smidr_ci.builds.collectables import CACHES
from smidr_ci.builds.gc import Collected, GcOptions, hold_caches, run_gc
from smidr_ci.builds.host import Host
from smidr_ci.builds.reconcile import mark_interrupted_builds
from smidr_ci.caches.lru import Caps, Removal
from smidr_ci.caches.verify import State, Verdict, verify_downloads, verify_sstate
from smidr_ci.cancel import CancelToken
from smidr_ci.cli.cache_push import push
from smidr_ci.cli.cache_stats import stats
from smidr_ci.cli.output import human_size, local_time
from smidr_ci.cli.signals import stoppable
from smidr_ci.config.caches import parse_age
from smidr_ci.config.values import parse_size
from smidr_ci.errors import FailureKind
from smidr_ci.text import printable

__all__ = ["cache"]

Command = TypeVar("Command", bound=Callable[..., object])

_DAY_S = 86_400


@click.group()
def cache() -> None:
    """Show, collect and check the caches that builds share."""


cache.add_command(push)
cache.add_command(stats)


class _Size(click.ParamType[int]):
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes; 0 is nothing at all."""
        text = str(value)
        try:
            return 0 if text == "0" else parse_size(int(text) if text.isdecimal() else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Age(click.ParamType[float]):
    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        try:
            return parse_age(str(value)) * _DAY_S
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _lines_option(command: Command) -> Command:
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print a JSON object per line, and a summary as the last.",
    )(command)


@cache.command()
@click.option(
    "--cache",
    "names",
    type=click.Choice(CACHES),
    multiple=True,
    help="Only this cache; may be given several times. The default is all.",
)
@click.option(
    "--max-size",
    type=_Size(),
    metavar="SIZE",
    help="Instead of the limit in agent.yaml, for each chosen cache; without --cache for sstate.",
)
@click.option(
    "--max-age",
    type=_Age(),
    metavar="AGE",
    help="Remove what was not used for so long: 12h, 30d, 8w. For the same caches as --max-size.",
)
@click.option(
    "--keep-reachable",
    "keep_builds",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Keep the sstate objects that the newest N builds of each project used.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed, and why.")
@_lines_option
def gc(
    names: tuple[str, ...],
    max_size: int | None,
    max_age: float | None,
    keep_builds: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what was used least recently: beyond the limits, or when a disk gets short.

    What running and queued builds may need stays. Builds may go on meanwhile. Logs and artifacts
    have limits of their own (`history` in agent.yaml, `smidr artifacts clean`).
    """
    host = Host.open()
    mark_interrupted_builds(host.store)
    options = GcOptions(
        caches=frozenset(names or CACHES),
        caps={name: Caps(max_size, max_age) for name in names or ("sstate",)},
        keep_builds=keep_builds,
        dry_run=dry_run,
    )
    printer = _Removals(dry_run=dry_run, as_json=as_json)
    with stoppable() as cancel:
        collected = run_gc(
            host, options, cancel, _note, printer.show if as_json or dry_run else None
        )
        if not dry_run:
            with contextlib.suppress(OSError):
                _refresh_index(host, cancel)
    printer.summarise(collected)


class _Removals:
    """Prints what goes; lines come from several threads."""

    def __init__(self, *, dry_run: bool, as_json: bool) -> None:
        self._verb = "would remove" if dry_run else "removed"
        self._dry_run = dry_run
        self._as_json = as_json
        self._lock = threading.Lock()

    def show(self, item: Removal) -> None:
        """Print one line."""
        used = datetime.fromtimestamp(item.last_use_s, UTC)
        if self._as_json:
            line = json.dumps({**asdict(item), "last_use": used.isoformat()})
        else:
            line = printable(
                f"{self._verb} {item.cache}: {item.path} ({human_size(item.size_bytes)}, last used"
                f" {local_time(used)}): {item.reason}"
            )
        with self._lock:
            click.echo(line)

    def summarise(self, collected: Sequence[Collected]) -> None:
        """Print what each cache lost."""
        if self._as_json:
            done = {"dry_run": self._dry_run, "collected": [asdict(item) for item in collected]}
            click.echo(json.dumps(done))
            return
        for item in collected:
            if item.problem:
                click.echo(f"{item.cache}: not collected: {printable(item.problem)}")
            else:
                size = human_size(item.size_bytes)
                click.echo(f"{item.cache}: {self._verb} {item.units} of its parts, {size}")


def _refresh_index(host: Host, cancel: CancelToken) -> None:
    places, index = host.places, index_of(host)
    index.refresh("sstate", places.sstate, cancel)
    index.refresh("downloads", places.downloads, cancel)


@cache.command()
@click.option(
    "--cache",
    "names",
    type=click.Choice(["sstate", "downloads"]),
    multiple=True,
    help="Only this cache. The default is both.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what is damaged.")
@_lines_option
def verify(names: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Check all sstate objects and downloads, and set damaged ones aside.

    They go to the folder `damaged` of their cache, and builds make or fetch them anew. Exit code 1
    when something is damaged.
    """
    host, places = Host.open(), None
    places = host.places
    counts: Counter[tuple[str, str]] = Counter()
    with stoppable() as cancel, hold_caches(host):
        verdicts: list[Iterator[Verdict]] = []
        if "sstate" in (names or "sstate"):
            verdicts.append(verify_sstate(places.sstate, cancel, dry_run=dry_run))
        if "downloads" in (names or "downloads"):
            verdicts.append(verify_downloads(places.downloads, cancel, dry_run=dry_run))
        for verdict in chain.from_iterable(verdicts):
            counts[verdict.cache, verdict.state] += 1
            if as_json:
                click.echo(json.dumps(asdict(verdict)))
            elif verdict.state is State.DAMAGED:
                click.echo(_damage(verdict))
    _print_counts(counts, as_json=as_json)
    is_damaged = any(state == State.DAMAGED for _, state in counts)
    return FailureKind.BUILD.exit_code if is_damaged else 0


def _damage(verdict: Verdict) -> str:
    done = "set aside" if verdict.is_set_aside else "not set aside"
    return printable(f"damaged, {done}: {verdict.cache}: {verdict.path}: {verdict.reason}")


def _print_counts(counts: Counter[tuple[str, str]], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"cache": name, "state": str(state), "count": count}
            for (name, state), count in sorted(counts.items())
        ]
        click.echo(json.dumps({"verified": rows}))
        return
    for name in ("sstate", "downloads"):
        parts = [f"{counts[name, state]} {state}" for state in State if counts[name, state]]
        if parts:
            click.echo(f"{name}: {', '.join(parts)}")


def _note(line: str) -> None:
    click.echo(printable(line), err=True)
