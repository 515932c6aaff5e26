"""A BitBake project of many generated recipes on hello's classes, to measure parsing with.

A recipe weighs about what one of OE-Core does: a recipe there inherits some hundred functions and a
thousand variables, has about thirty tasks and six packages, and BitBake reads each of them to
compute the signatures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["NOTHING", "add_recipes", "nothing_recipe"]

NOTHING: Final = "benchmark-nothing"
"""A recipe without tasks that do anything: what BitBake does for it is parsing."""
_TASKS: Final = 24
_FUNCTIONS: Final = 120
_VARIABLES: Final = 800
_PACKAGES: Final = ("", "-dev", "-dbg", "-doc", "-locale", "-src")


def add_recipes(layer: Path, count: int) -> None:
    """Add so many recipes to a copy of hello's layer; none of them is part of its image."""
    (layer / "classes" / "generated.bbclass").write_text("".join(_class()), encoding="utf-8")
    folder = layer / "recipes" / "generated"
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"generated-{number:04d}_1.{number}.bb"
        path.write_text("".join(_recipe(number)), encoding="utf-8")
    (folder / f"{NOTHING}.bb").write_text(nothing_recipe(), encoding="utf-8")


def nothing_recipe() -> str:
    """The text of a recipe that builds nothing, on any layer's classes."""
    return (
        'SUMMARY = "Builds nothing"\nLICENSE = "MIT"\nINHIBIT_DEFAULT_DEPS = "1"\n'
        'EXCLUDE_FROM_WORLD = "1"\n'
        "python () {\n"
        "    for task in list(d.getVar('__BBTASKS', False) or []):\n"
        '        if task != "do_build":\n'
        "            bb.build.deltask(task, d)\n"
        '    d.setVarFlag("do_build", "noexec", "1")\n'
        "}\n"
    )


def _class() -> Iterator[str]:
    """What base.bbclass and its like are to a recipe of OE-Core."""
    for index in range(_VARIABLES):
        yield f'GENERATED_{index} ?= "${{PN}}-{index} ${{GENERATED_{(index * 7 + 1) % 50}_BASE}}"\n'
    for index in range(50):
        yield f'GENERATED_{index}_BASE ?= "${{WORKDIR}}/{index}/${{PV}}"\n'
    for index in range(_FUNCTIONS):
        yield _shell_function(index) if index % 2 else _python_function(index)
    for index in range(_TASKS):
        after = f" after do_generated_{index - 1}" if index else " after do_install"
        uses = "\n".join(
            f"    generated_{n}" for n in range(1 + index % 3, _FUNCTIONS, 30) if n % 2
        )
        yield f"do_generated_{index}() {{\n    :\n{uses}\n}}\n"
        yield f"addtask generated_{index}{after}\n"
    yield (
        "python () {\n"
        f"    for index in range({_VARIABLES}):\n"
        '        if (d.getVar("GENERATED_%d" % index) or "").endswith("never"):\n'
        '            d.setVar("GENERATED_FOUND", index)\n'
        "}\n"
    )


def _shell_function(index: int) -> str:
    return (
        f"generated_{index}() {{\n"
        f"    for item in ${{GENERATED_{index * 3}}} ${{GENERATED_{index * 3 + 1}}}; do\n"
        '        if [ -n "$item" ] && [ -e "${D}/$item" ]; then\n'
        f'            install -d "${{D}}/{index}" && sed -e "s/a/$item/" "$item" >"${{D}}/b"\n'
        "        fi\n"
        "    done\n"
        "}\n"
    )


def _python_function(index: int) -> str:
    return (
        f"python generated_{index}() {{\n"
        f'    for item in (d.getVar("GENERATED_{index * 3}") or "").split():\n'
        f'        if bb.utils.contains("GENERATED_{index * 3 + 1}", item, True, False, d):\n'
        '            bb.note("%s has %s" % (d.getVar("PN"), item))\n'
        "}\n"
    )


def _recipe(number: int) -> Iterator[str]:
    yield f'SUMMARY = "Generated recipe {number}"\nLICENSE = "MIT"\ninherit generated\n'
    if number:
        yield f'DEPENDS = "generated-{number // 2:04d}"\n' if number > 1 else ""
    names = " ".join("${PN}" + suffix for suffix in _PACKAGES)
    yield f'PACKAGES = "{names}"\n'
    for suffix in _PACKAGES:
        yield f'FILES:${{PN}}{suffix} = "${{bindir}}/{number}{suffix}"\n'
        yield f'RDEPENDS:${{PN}}{suffix} = "generated-{number // 3:04d}"\n' if number > 2 else ""
    yield f'do_compile() {{\n    echo "{number}" >generated.txt\n}}\n'
