"""Memory of smidr and speed of the log path, with a build whose console grows to a gigabyte."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.site import Site

__all__ = ["measure_console", "with_loud_container"]

_LINE: Final = "NOTE: recipe zlib-1.3.1-r0: task do_compile: Succeeded"
_CONFIG: Final = "loud.yaml"


def with_loud_container(site: Site, size_bytes: int) -> None:
    """Write a config whose container fills the console before the driver starts.

    The target does not exist, so the whole log is also read for a diagnosis.
    """
    script = (
        f"yes '{_LINE}' | head -c {size_bytes} >> /smidr/control/console.log;"
        ' echo >> /smidr/control/console.log; exec "$@"'
    )
    text = (site.folder / "smidr.yaml").read_text(encoding="utf-8")
    entrypoint = f"container:\n  entrypoint: {json.dumps(['sh', '-c', script, 'sh'])}\n"
    changed = text.replace("container:\n", entrypoint)
    (site.folder / _CONFIG).write_text(changed, encoding="utf-8")


def measure_console(site: Site) -> tuple[int, int, float]:
    """Peak bytes of `smidr build` and of `smidr logs`, and the lines/s of the latter."""
    build = site.smidr("build", "-c", _CONFIG, "-t", "there-is-none", "--json", check=False)
    console = site.home / "builds" / build.record["build_id"] / "control" / "console.log"
    lines = _count_lines(console)
    begun = time.perf_counter()
    logs = site.smidr("logs", build.record["build_id"], output=subprocess.DEVNULL)
    return build.peak_bytes, logs.peak_bytes, lines / (time.perf_counter() - begun)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
