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

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import agent, generated, logbook, oecore
from benchmarks.console import measure_console, with_loud_container
from benchmarks.kas import Kas, install_kas
from benchmarks.samples import Bound, Comparison, Goal, Samples, in_turns, table
from benchmarks.site import Site, hello_site
from benchmarks.twin import Twin, twin_of

__all__ = ["Options", "main", "measure", "remove_work"]

_NO_OP: Final = Goal(at_most_longer_s=1.5)
_NOT_LONGER: Final = Goal(at_most_ratio=1.0)
_SEEDED: Final = Goal(at_most_ratio=1.2)
_MEMORY_MB: Final = 120
_LINES_PER_S: Final = 200_000


@dataclass(frozen=True)
class Options:
    """What to measure and how large."""

    work: Path
    parts: tuple[str, ...]
    rounds: int = 5
    recipes: int = 900
    console_bytes: int = 1_000_000_000
    history: int = 10_000
    idle_s: float = 30.0
    with_kas: bool = True
    bitbake: str = "auto"
    base_image: str | None = None

    def site(self, name: str, target: str, change: Callable[[Path], None]) -> Site:
        """A prepared project."""
        return hello_site(
            self.work,
            name,
            target=target,
            bitbake=self.bitbake,
            base_image=self.base_image,
            change=change,
        )


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(options: Options) -> Iterator[Comparison | Bound]:
    """All rows of the chosen parts."""
    for part in options.parts:
        _note(f"== {part}")
        yield from _PARTS[part](options)


def _hello(options: Options) -> Iterator[Comparison]:
    site = options.site("hello", "hello-image", lambda _: None)
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
        found = in_turns(contenders, options.rounds, _note)
    goals = {"bitbake, same directory": _NO_OP, "kas, same directory": _NOT_LONGER}
    yield from _rows("hello, nothing to do", found, goals)


def _agent(options: Options) -> Iterator[Comparison | Bound]:
    site = options.site("agent", "hello-image", lambda _: None)
    yield from agent.idle_rows(site, builds=options.history, idle_s=options.idle_s)
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
        found = in_turns(contenders, options.rounds, _note)
    goals = {"bitbake, same directory": _NO_OP, "kas, same directory": _NOT_LONGER}
    yield from _rows("hello, nothing to do, by an agent", found, goals)


def _generated(options: Options) -> Iterator[Comparison]:
    def change(layer: Path) -> None:
        generated.add_recipes(layer, options.recipes)

    site = options.site("generated", generated.NOTHING, change)
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
    found = in_turns(warm, options.rounds, _note)
    smidr = found["smidr"]
    yield from _rows(f"{what}, all cached", found, {"bitbake, same directory": _SEEDED})
    cold = {
        "smidr --clean": lambda: site.build("--clean"),
        "bitbake, no cache": lambda: twin.cold(site.target),
    }
    if kas is not None:
        cold["kas, fresh directory"] = kas.fresh
    found = in_turns(cold, min(options.rounds, 3), _note)
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
        _note(f"kas {install_kas(installed, twin.facts['Config']['Image'])}")
    kas = Kas(options.work / site.name / "kas", installed, twin, site.target)
    kas.prepare()
    return kas


def _console(options: Options) -> Iterator[Bound]:
    site = options.site("console", "there-is-none", lambda _: None)
    with_loud_container(site, options.console_bytes)
    build, logs, rate = measure_console(site)
    size = f"{options.console_bytes / 1e6:,.0f} MB console"
    yield Bound(f"smidr build that fails, {size}", build / 1e6, "MB", at_most=_MEMORY_MB)
    yield Bound(f"smidr logs, {size}", logs / 1e6, "MB", at_most=_MEMORY_MB)
    yield Bound(f"smidr logs, {size}", rate, "lines/s", at_least=_LINES_PER_S)


def _log(options: Options) -> Iterator[Bound]:
    rate = logbook.live_rate(options.work, options.console_bytes)
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
    chosen = _parse()
    work = Path(tempfile.mkdtemp(prefix="smidr-benchmark-", dir=chosen.work))
    begun = time.perf_counter()
    try:
        rows = list(measure(_options(chosen, work)))
    finally:
        remove_work(work)
    print(table(rows))
    print(f"\nMedians of {chosen.rounds} rounds (range), in {time.perf_counter() - begun:.0f} s.")
    if chosen.json:
        document = {"rounds": chosen.rounds, "rows": [row.to_dict() for row in rows]}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name in _PARTS if name != "oe-core" or oecore.is_given()]
    parser.add_argument("--parts", default=",".join(usual), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipes", type=int, default=900)
    parser.add_argument("--history", type=int, default=10_000, help="builds that an agent knows")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of an agent's idling")
    parser.add_argument("--console-mb", type=int, default=1000)
    parser.add_argument("--no-kas", action="store_true", help="don't install and measure kas")
    parser.add_argument("--bitbake", default="auto", help="as of examples/hello/prepare.py")
    parser.add_argument("--base-image", help="of the builder image; default: smidr's own choice")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    chosen = parser.parse_args()
    unknown = set(chosen.parts.split(",")) - set(_PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(_PARTS)}")
    return chosen


def _options(chosen: argparse.Namespace, work: Path) -> Options:
    return Options(
        work=work,
        parts=tuple(chosen.parts.split(",")),
        rounds=chosen.rounds,
        recipes=chosen.recipes,
        console_bytes=chosen.console_mb * 1_000_000,
        history=chosen.history,
        idle_s=chosen.idle,
        with_kas=not chosen.no_kas,
        bitbake=chosen.bitbake,
        base_image=chosen.base_image,
    )


def remove_work(work: Path) -> None:
    """Delete a directory of a benchmark with all in it."""
    for folder in work.rglob("*/"):  # layer trees are read-only, also for their owner
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
