"""Log path: lines per second from file to follower, and memory with a 1 GB log.

    python benchmarks/logbook.py [--gigabytes 1] [--followers 1]

A writer process appends lines like BitBake's while followers read; then the whole file is read
once more from its beginning, as by somebody who comes late.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from smidr_ci.builds.logbook import LogReader, follow, lines_of, printable

__all__ = ["live_rate", "main"]

_LINE = "NOTE: recipe zlib-1.3.1-r0: task do_compile: Succeeded (%09d of 999999999)\n"
_WRITER = """
import sys
line, count = sys.argv[2], int(sys.argv[3])
with open(sys.argv[1], "w") as out:
    for start in range(0, count, 1000):
        out.writelines(line % number for number in range(start, min(start + 1000, count)))
"""


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--followers", type=int, default=1)
    options = parser.parse_args()
    count = int(options.gigabytes * 1e9) // len(_LINE % 0)
    before = _peak_mb()
    with tempfile.TemporaryDirectory(prefix="smidr-benchmark-") as folder:
        log = Path(folder) / "console.log"
        took = _live(log, count, options.followers)
        _report(f"live, {options.followers} followers", count, took)
        for name, step in (("raw", _raw), ("lines", _lines), ("printable text", _text)):
            start = time.perf_counter()
            seen = step(log)
            _report(f"existing log, {name}", seen, time.perf_counter() - start)
        start = time.perf_counter()
        with LogReader(log) as reader:
            tail = reader.tail(1000)[1]
        took_ms = (time.perf_counter() - start) * 1000
        print(f"the last {len(tail.splitlines())} lines: {took_ms:.1f} ms")
    print(f"peak memory {_peak_mb():.1f} MB, of which {_peak_mb() - before:.1f} MB for the log")


def live_rate(folder: Path, size_bytes: int) -> float:
    """Lines per second of one follower while a log grows to this size in `folder`."""
    count = size_bytes // len(_LINE % 0)
    return count / _live(folder / "growing.log", count, 1)


def _live(log: Path, count: int, followers: int) -> float:
    """Seconds until all followers have read what a writer writes meanwhile."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, log, _LINE, str(count)])
    seen = [0] * followers

    def is_over() -> bool:
        return writer.poll() is not None

    def read(index: int) -> None:
        for _, chunk in follow(log, 0, is_over, time.sleep):
            seen[index] += chunk.count(b"\n")

    start = time.perf_counter()
    threads = [threading.Thread(target=read, args=(index,)) for index in range(followers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [count] * followers, f"lines were lost: {seen} of {count}"
    return time.perf_counter() - start


def _raw(log: Path) -> int:
    return sum(chunk.count(b"\n") for _, chunk in follow(log, 0, lambda: True, time.sleep))


def _lines(log: Path) -> int:
    return sum(1 for _ in lines_of(chunk for _, chunk in follow(log, 0, lambda: True, time.sleep)))


def _text(log: Path) -> int:
    chunks = (chunk for _, chunk in follow(log, 0, lambda: True, time.sleep))
    return sum(1 for line in lines_of(chunks) if printable(line, colours=True))


def _report(what: str, lines: int, seconds: float) -> None:
    print(f"{what}: {lines} lines in {seconds:.1f} s, {lines / seconds:,.0f} lines/s")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
