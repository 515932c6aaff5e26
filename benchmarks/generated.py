"""A BitBake project of many generated recipes on hello's classes, to measure parsing with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

__all__ = ["write_layer"]

_RECIPE: Final = '''\
SUMMARY = "Generated recipe {number}"
LICENSE = "MIT"
PV = "1.{number}"

python () {{
    # Work of about the size of what a real recipe's classes do while they are parsed.
    for index in range({loops}):
        d.setVar("GENERATED_%d" % index, d.expand("${{PN}}-${{PV}}-%d" % index))
}}

do_compile() {{
    echo "{number}" > generated.txt
}}
'''


def write_layer(source: Path, destination: Path, recipes: int, loops: int = 300) -> Path:
    """Copy hello's layer and add so many recipes, none of which hello-image needs."""
    shutil.copytree(source, destination)
    folder = destination / "recipes-generated" / "generated"
    folder.mkdir(parents=True)
    for number in range(recipes):
        text = _RECIPE.format(number=number, loops=loops)
        (folder / f"generated-{number:04d}.bb").write_text(text, encoding="utf-8")
    return destination
