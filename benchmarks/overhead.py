"""What smidr costs on top of BitBake, measured against BitBake by hand and against kas.

    python -m benchmarks.overhead [--parts hello,agent,generated,console,log] [--json FILE]

`hello`: a no-op rebuild. `agent`: the same by a running agent, what an idle agent costs, and a list
of 10,000 builds. `generated`: parsing 900 recipes, cold and with a cache. `console`: memory
with a console log of 1 GB. `log`: lines per second from a file to its follower. `oe-core`: parsing
OE-Core, with SMIDR_TEST_OE_CORE and SMIDR_TEST_BITBAKE naming checkouts.

A figure is a median of rounds in which all contenders take turns, with the range beside it. BitBake
by hand is `docker exec` in a running copy of the build's container: same image, user, limits and
mounts. kas is the newest from PyPI in `docker run`, with the same again. smidr's figure is the
whole command, from process start to exit; each of its builds has a fresh directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import agent, command, generated, logbook, oecore
from benchmarks.command import note, parser_for, run
from benchmarks.console import measure_console, with_loud_container
from benchmarks.kas import Kas, install_kas
from benchmarks.samples import Bound, Comparison, Goal, Samples, in_turns
from benchmarks.site import Site
from benchmarks.twin import Twin, twin_of

__all__ = ["Options", "main"]

_NO_OP: Final = Goal(at_most_longer_s=1.5)
_NOT_LONGER: Final = Goal(at_most_ratio=1.0)
_SEEDED: Final = Goal(at_most_ratio=1.2)
_MEMORY_MB: Final = 120
_LINES_PER_S: Final = 200_000


@dataclass(frozen=True)
class Options(command.Options):
    """What to measure and how large."""

    console_mb: int = 1000
    history: int = 10_000
    """Builds that an agent knows."""
    idle: float = 30.0
    """Seconds of an agent's idling."""


def _hello(options: Options) -> Iterator[Comparison]:
    site = options.site("hello")
    site.build()
    with twin_of(site) as twin:
        twin.bitbake(site.target)
        twin.keep_cache()
        contenders = {
            "smidr": site.build,
            "bitbake, same directory": lambda: twin.bitbake(site.target),
            "bitbake, fresh directory": lambda: twin.seeded(site.target),
        }
        if options.with_kas:
            kas = _kas(options, site, twin)
            kas.build()
            contenders["kas, same directory"] = kas.build
        found = in_turns(contenders, options.rounds, note)
    goals = {"bitbake, same directory": _NO_OP, "kas, same directory": _NOT_LONGER}
    yield from _rows("hello, nothing to do", found, goals)


def _agent(options: Options) -> Iterator[Comparison | Bound]:
    site = options.site("agent")
    yield from agent.idle_rows(site, builds=options.history, idle_s=options.idle)
    site.build()
    with twin_of(site) as twin, agent.running_agent(site):
        twin.bitbake(site.target)
        twin.keep_cache()
        contenders = {
            "smidr": site.build,
            "smidr --no-agent": lambda: site.build("--no-agent"),
            "bitbake, same directory": lambda: twin.bitbake(site.target),
        }
        if options.with_kas:
            kas = _kas(options, site, twin)
            kas.build()
            contenders["kas, same directory"] = kas.build
        found = in_turns(contenders, options.rounds, note)
    goals = {"bitbake, same directory": _NO_OP, "kas, same directory": _NOT_LONGER}
    yield from _rows("hello, nothing to do, by an agent", found, goals)


def _generated(options: Options) -> Iterator[Comparison]:
    def change(layer: Path) -> None:
        generated.add_recipes(layer, options.recipes)

    site = options.site("generated", target=generated.NOTHING, change=change)
    site.build()
    with twin_of(site) as twin:
        kas = _kas(options, site, twin) if options.with_kas else None
        yield from _parsing(f"{options.recipes} recipes", options, site, twin, kas)


def _oe_core(options: Options) -> Iterator[Comparison]:
    site = oecore.oe_core_site(options.work)
    site.build()
    with twin_of(site, enter=oecore.ENTER) as twin:
        yield from _parsing("OE-Core", options, site, twin, None)


def _parsing(
    what: str, options: Options, site: Site, twin: Twin, kas: Kas | None
) -> Iterator[Comparison]:
    twin.bitbake(site.target)
    twin.keep_cache()
    warm = {
        "smidr": site.build,
        "bitbake, same directory": lambda: twin.bitbake(site.target),
        "bitbake, fresh directory": lambda: twin.seeded(site.target),
    }
    if kas is not None:
        kas.build()
        warm["kas, same directory"] = kas.build
    found = in_turns(warm, options.rounds, note)
    smidr = found["smidr"]
    yield from _rows(f"{what}, all cached", found, {"bitbake, same directory": _SEEDED})
    cold = {
        "smidr --clean": lambda: site.build("--clean"),
        "bitbake, no cache": lambda: twin.cold(site.target),
    }
    if kas is not None:
        cold["kas, fresh directory"] = kas.fresh
    found = in_turns(cold, min(options.rounds, 3), note)
    parsed = found.pop("smidr --clean")
    for name, baseline in found.items():
        yield Comparison(f"{what}, parsed anew by both", name, baseline, parsed)
        yield Comparison(f"{what}, fresh directory as each has it", name, baseline, smidr)


def _rows(what: str, found: dict[str, Samples], goals: dict[str, Goal]) -> Iterator[Comparison]:
    smidr = found.pop("smidr")
    for name, baseline in found.items():
        yield Comparison(what, name, baseline, smidr, goals.get(name))


def _kas(options: Options, site: Site, twin: Twin) -> Kas:
    installed = options.work / "kas"
    if not installed.exists():
        note(f"kas {install_kas(installed, twin.facts['Config']['Image'])}")
    kas = Kas(options.work / site.name / "kas", installed, twin, site.target)
    kas.prepare()
    return kas


def _console(options: Options) -> Iterator[Bound]:
    site = options.site("console", target="there-is-none")
    console_bytes = options.console_mb * 1_000_000
    with_loud_container(site, console_bytes)
    build, logs, rate = measure_console(site)
    size = f"{console_bytes / 1e6:,.0f} MB console"
    yield Bound(f"smidr build that fails, {size}", build / 1e6, "MB", at_most=_MEMORY_MB)
    yield Bound(f"smidr logs, {size}", logs / 1e6, "MB", at_most=_MEMORY_MB)
    yield Bound(f"smidr logs, {size}", rate, "lines/s", at_least=_LINES_PER_S)


def _log(options: Options) -> Iterator[Bound]:
    rate = logbook.live_rate(options.work, options.console_mb * 1_000_000)
    yield Bound("file to follower, while it grows", rate, "lines/s", at_least=_LINES_PER_S)


_PARTS: Final[dict[str, Callable[[Options], Iterator[Comparison | Bound]]]] = {
    "hello": _hello,
    "agent": _agent,
    "generated": _generated,
    "console": _console,
    "log": _log,
    "oe-core": _oe_core,
}


def main() -> None:
    """Measure, print the table, and write the JSON file when asked to."""
    parser = parser_for(__doc__, _PARTS)
    parser.add_argument("--history", type=int, default=10_000, help="builds that an agent knows")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of an agent's idling")
    parser.add_argument("--console-mb", type=int, default=1000)
    run(parser, Options, _PARTS)


if __name__ == "__main__":
    main()
