"""Builds in fresh and in warm workspaces, against BitBake in a kept directory and against kas.

    python -m benchmarks.workspaces [--parts hello,generated,disk] [--json FILE]

`hello` and `generated` (900 more recipes): a rebuild with nothing to do, and one after a change of
one recipe. `oe-core`: the same with OE-Core, for SMIDR_TEST_OE_CORE and SMIDR_TEST_BITBAKE that
name checkouts. `disk`: three variants of one project on one host, against three directories that
share nothing.

A figure is a median of rounds in which all contenders take turns, with the range beside it. smidr's
is the whole command, with a running agent but where it says otherwise. "bitbake" is `docker run` of
what a user types, with the image, user, limits and mounts of smidr's own container, in a directory
that is kept; "in a running container" spares it the start. Whoever changes a recipe makes a change
that nobody has made before, so that no shared state helps; smidr's is a commit that it must fetch.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks import generated, oecore
from benchmarks.agent import running_agent
from benchmarks.command import Options, note, parser_for, run
from benchmarks.kas import Kas, install_kas
from benchmarks.samples import Bound, Comparison, Goal, Samples, in_turns
from benchmarks.site import Site
from benchmarks.twin import Twin, twin_of
from smidr_ci.workspaces.removal import disk_usage

__all__ = ["main"]

_VARIANTS: Final = {
    "x86": ("hello-x86", ""),
    "pc": ("hello-pc", ""),
    "debug": ("hello-x86", "local_conf: 'CFLAGS:append = \" -g\"'\n"),
}
"""Name of a config: its machine, and more of it."""
_LAYER: Final = "/smidr/layers/meta-hello"
_RECIPE: Final = "recipes/hello/hello_1.0.bb"
_BITBAKE: Final = "bitbake, kept directory"
_RUNNING: Final = "bitbake, kept directory in a running container"
_KAS: Final = "kas, kept directory"
_WARM: Final = "smidr, warm"
_ALONE: Final = "smidr, warm without an agent"
_FRESH: Final = "smidr, fresh with parse cache"
_UNSEEDED: Final = "smidr, fresh without"
_GOALS: Final = {
    (_WARM, _BITBAKE): Goal(at_most_ratio=1.1),
    (_FRESH, _BITBAKE): Goal(at_most_ratio=1.3),
}
_DISK_PERCENT: Final = 50


@dataclass
class Scene:
    """One project, and what each contender builds it in."""

    site: Site
    twin: Twin
    layer: Path
    """The layer that the twin and kas see; a copy of their own."""
    recipe: str
    commit: Callable[[str], None]
    """Give the recipe this text in what smidr builds."""
    kas: Kas | None = None
    parses_anew: bool = True
    """Also measure without any cache: with OE-Core that takes minutes, and `overhead` does it."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def nothing_to_do(self) -> dict[str, Callable[[], float]]:
        """Each contender, in what it has built before."""
        smidr = {
            _WARM: self.site.build,
            _ALONE: lambda: self.site.build("--no-agent"),
            _FRESH: lambda: self.site.build("--fresh"),
        }
        if self.parses_anew:
            smidr[_UNSEEDED] = lambda: self.site.build("--clean")
        return {**smidr, **self._others(lambda: None)}

    def one_recipe(self) -> dict[str, Callable[[], float]]:
        """The same, each with a change of its own."""

        def changed(*arguments: str) -> float:
            self.commit(self._text())
            return self.site.build(*arguments)

        def edit() -> None:
            (self.layer / self.recipe).write_text(self._text(), encoding="utf-8")

        smidr = {_WARM: changed, _FRESH: lambda: changed("--fresh")}
        return {**smidr, **self._others(edit)}

    def _others(self, before: Callable[[], None]) -> dict[str, Callable[[], float]]:
        def after(build: Callable[[], float]) -> Callable[[], float]:
            def run() -> float:
                before()
                return build()

            return run

        target = self.site.target
        found = {
            _BITBAKE: after(lambda: self.twin.bitbake_once(target)),
            _RUNNING: after(lambda: self.twin.bitbake(target)),
        }
        if self.kas is not None:
            found[_KAS] = after(self.kas.build)
        return found

    def _text(self) -> str:
        original = (self.layer / f"{self.recipe}.orig").read_text(encoding="utf-8")
        return f'{original}\ndo_compile[vardeps] += "CHANGE"\nCHANGE = "{next(self.numbers)}"\n'


def _hello(options: Options) -> Iterator[Comparison]:
    yield from _hello_with(options, "hello", 0)


def _generated(options: Options) -> Iterator[Comparison]:
    yield from _hello_with(options, f"{options.recipes} recipes", options.recipes)


def _hello_with(options: Options, what: str, recipes: int) -> Iterator[Comparison]:
    def change(layer: Path) -> None:
        if recipes:
            generated.add_recipes(layer, recipes)

    site = options.site("generated" if recipes else "hello", change=change)
    _let_it_be_warm(site)
    site.build()
    project = site.folder.parent
    layer = _copy_of_layer(project / "meta-hello", options.work / site.name / "layer", _RECIPE)

    def commit(text: str) -> None:
        (project / "meta-hello" / _RECIPE).write_text(text, encoding="utf-8")
        prepare = [sys.executable, "prepare.py", "--bitbake", options.bitbake]
        subprocess.run(prepare, cwd=project, check=True, stdout=subprocess.DEVNULL)

    with twin_of(site, replaced={_LAYER: layer}) as twin, running_agent(site):
        kas = None
        if options.with_kas:
            installed = options.work / "kas"
            if not installed.exists():
                note(f"kas {install_kas(installed, twin.facts['Config']['Image'])}")
            kas = Kas(options.work / site.name / "kas", installed, twin, site.target)
            kas.prepare()
            kas.build()
        yield from _rows(what, options, Scene(site, twin, layer, _RECIPE, commit, kas))


def _oe_core(options: Options) -> Iterator[Comparison]:
    site = oecore.oe_core_site(options.work)
    recipe = f"recipes/benchmark/{generated.NOTHING}.bb"
    source = site.folder / "meta-benchmark"
    _let_it_be_warm(site)
    site.build()
    layer = _copy_of_layer(source, options.work / site.name / "layer", recipe)

    def commit(text: str) -> None:
        (source / recipe).write_text(text, encoding="utf-8")

    replaced = {"/smidr/layers/meta-benchmark": layer}
    with twin_of(site, enter=oecore.ENTER, replaced=replaced) as twin, running_agent(site):
        yield from _rows(
            "OE-Core", options, Scene(site, twin, layer, recipe, commit, parses_anew=False)
        )


def _let_it_be_warm(site: Site) -> None:
    site.home.mkdir(exist_ok=True)
    (site.home / "agent.yaml").write_text("workspaces: {mode: warm}\n", encoding="utf-8")


def _copy_of_layer(source: Path, target: Path, recipe: str) -> Path:
    shutil.copytree(source, target)
    shutil.copy2(target / recipe, target / f"{recipe}.orig")
    return target


def _rows(what: str, options: Options, scene: Scene) -> Iterator[Comparison]:
    for title, contenders in (
        ("nothing to do", scene.nothing_to_do()),
        ("one recipe changed", scene.one_recipe()),
    ):
        for build in contenders.values():  # what only the first run of each pays
            build()
        found = in_turns(contenders, options.rounds, note)
        for name in [name for name in found if name.startswith("smidr")]:
            others = [other for other in found if not other.startswith("smidr")]
            for other in others:
                goal = _GOALS.get((name, other)) if title == "nothing to do" else None
                row = f"{what}, {title}: {name.removeprefix('smidr, ')}"
                yield Comparison(row, other, found[other], found[name], goal)


def _disk(options: Options) -> Iterator[Comparison]:
    """What three variants take on one host, and in three directories that share nothing."""
    alone = [_bytes_of(options, f"alone-{name}", "warm", (name,)) for name in _VARIANTS]
    baseline = Samples((sum(alone) / 1e6,))
    for mode in ("fresh", "warm"):
        found = Samples((_bytes_of(options, f"shared-{mode}", mode, tuple(_VARIANTS)) / 1e6,))
        goal = Goal(at_most_ratio=_DISK_PERCENT / 100)
        what = f"MB of three variants, {mode} workspaces"
        yield Comparison(what, "three directories", baseline, found, goal)


def _bytes_of(options: Options, name: str, mode: str, variants: tuple[str, ...]) -> int:
    """Bytes of layers, caches and workspaces after a build of each variant in one home."""
    site = replace(options, work=options.work / name).site(name)
    site.home.mkdir(exist_ok=True)
    settings = f"workspaces: {{mode: {mode}}}\n"
    (site.home / "agent.yaml").write_text(settings, encoding="utf-8")
    text = (site.folder / "smidr.yaml").read_text(encoding="utf-8")
    for variant in variants:
        machine, more = _VARIANTS[variant]
        config = site.folder / f"{variant}.yaml"
        config.write_text(text.replace("hello-x86 ", f"{machine} ") + more, encoding="utf-8")
        site.build("-c", config.name)
    while list(site.home.glob("workspaces/*/.deleting-*")):
        time.sleep(0.1)  # in the background
    folders = ("layers", "downloads", "sstate-cache", "parse-cache", "workspaces")
    sizes = {folder: disk_usage(site.home / folder) for folder in folders}
    note(f"{name}: " + ", ".join(f"{key} {size / 1e6:.1f}" for key, size in sizes.items()))
    return sum(sizes.values())


_PARTS: Final[dict[str, Callable[[Options], Iterator[Comparison | Bound]]]] = {
    "hello": _hello,
    "generated": _generated,
    "oe-core": _oe_core,
    "disk": _disk,
}


def main() -> None:
    """Measure, print the table, and write the JSON file when asked to."""
    run(parser_for(__doc__, _PARTS), Options, _PARTS)


if __name__ == "__main__":
    main()
