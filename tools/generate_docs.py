"""Writes the pages under docs/ that are made from the code.

python tools/generate_docs.py           write them
python tools/generate_docs.py --check   exit 1 and name them when one is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from tools.cli_reference import cli_page  # noqa: E402 - needs the path above
from tools.configuration_reference import configuration_page  # noqa: E402 - needs the path above

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "docs/cli.md": cli_page,
    "docs/configuration.md": configuration_page,
}
"""Each page with the function that makes its text; add a line to add a page."""


def main(arguments: list[str]) -> int:
    """Write or check all pages; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the pages under docs/ from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    is_check = parser.parse_args(arguments).check
    stale = [name for name, make in PAGES.items() if _is_stale(_ROOT / name, make())]
    for name in stale:
        if is_check:
            print(f"{name} is out of date; run: python tools/generate_docs.py")
        else:
            (_ROOT / name).parent.mkdir(exist_ok=True)
            (_ROOT / name).write_text(PAGES[name](), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if is_check and stale else 0


def _is_stale(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
