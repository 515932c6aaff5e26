"""Start a BitBake release with smidr's UI module: `launch.py EVENTS BITBAKE [arguments]`.

BitBake finds a UI by name in the package `bb.ui`, so that package's path gets our directory too.
"""

from __future__ import annotations

import importlib
import io
import os
import runpy
import sys


def launch(events: str, bitbake: str, arguments: list[str]) -> None:
    """Run `BITBAKE/bin/bitbake` as the main program."""
    here = os.path.dirname(os.path.abspath(__file__))
    script = os.path.join(bitbake, "bin", "bitbake")
    sys.path[0] = os.path.join(bitbake, "lib")  # was our own directory
    sys.path.append(os.path.dirname(here))
    sys.dont_write_bytecode = False
    # To a file, Python would write in blocks, and the console would lag behind.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    ui = importlib.import_module("bb.ui")

    ui.__path__.append(os.path.join(here, "ui"))
    ui.smidr_events = events  # type: ignore[attr-defined]  # for our module to find
    sys.argv = [script, "-u", "smidr_ui", *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    launch(sys.argv[1], sys.argv[2], sys.argv[3:])
