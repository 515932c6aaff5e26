"""What benchmarks with parts have in common: their options, and how rows come out."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import oecore
from benchmarks.samples import Bound, Comparison, table
from benchmarks.site import Site, hello_site

__all__ = ["Options", "note", "parser_for", "run"]


@dataclass(frozen=True)
class Options:
    """What to measure and how large; each field is an option of the command."""

    work: Path
    """Temporary; all is made in there."""
    parts: tuple[str, ...]
    rounds: int = 5
    recipes: int = 900
    with_kas: bool = True
    bitbake: str = "auto"
    base_image: str | None = None

    def site(
        self,
        name: str,
        *,
        target: str = "hello-image",
        change: Callable[[Path], None] = lambda _: None,
    ) -> Site:
        """A prepared project; `change` gets its layer before it is committed."""
        return hello_site(
            self.work,
            name,
            target=target,
            bitbake=self.bitbake,
            base_image=self.base_image,
            change=change,
        )


Chosen = TypeVar("Chosen", bound=Options)
Part = Callable[[Chosen], Iterator[Comparison | Bound]]


def note(text: str) -> None:
    """Say what goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def parser_for(description: str | None, parts: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The options that all have; `parts` are measured when none are chosen, where they can be."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name in parts if name != "oe-core" or oecore.is_given()]
    parser.add_argument("--parts", default=",".join(usual), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipes", type=int, default=900)
    parser.add_argument(
        "--no-kas",
        dest="with_kas",
        action="store_false",
        help="don't install and measure kas",
    )
    parser.add_argument("--bitbake", default="auto", help="as of examples/hello/prepare.py")
    parser.add_argument("--base-image", help="of the builder image; default: smidr's own choice")
    parser.add_argument("--work", type=Path, help="where to make the temporary directory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    return parser


def run(
    parser: argparse.ArgumentParser, kind: type[Chosen], parts: Mapping[str, Part[Chosen]]
) -> None:
    """Measure the chosen parts, print the table, and write the JSON file when asked to."""
    chosen = parser.parse_args()
    names = tuple(chosen.parts.split(","))
    unknown = set(names) - set(parts)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    work = Path(tempfile.mkdtemp(prefix="smidr-benchmark-", dir=chosen.work))
    found = {field.name: vars(chosen)[field.name] for field in fields(kind)}
    options = kind(**{**found, "work": work, "parts": names})
    begun = time.perf_counter()
    rows: list[Comparison | Bound] = []
    try:
        for name in names:
            note(f"== {name}")
            rows += parts[name](options)
    finally:
        _remove(work)
    print(table(rows))
    print(f"\nMedians of {options.rounds} rounds (range), in {time.perf_counter() - begun:.0f} s.")
    if chosen.json:
        document = {"rounds": options.rounds, "rows": [row.to_dict() for row in rows]}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _remove(work: Path) -> None:
    for folder in work.rglob("*/"):  # layer trees are read-only, also for their owner
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
    shutil.rmtree(work, ignore_errors=True)
