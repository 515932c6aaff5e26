"""Scanning, counting and collecting an sstate cache of many files, against `find -delete`.

    python benchmarks/caches.py --files 1000000 --place /var/tmp

The files are small and lie as BitBake lays them, `ab/cd/sstate:...` with a `.siginfo` each; their
last uses are spread over 100 days. What deletes gets a tree of its own, made in the same way and
written out before. Each measurement is a process of its own, so that its memory is its own too.
Disks and neighbours vary: with `--rounds` the fastest of several counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smidr_ci.builds.gc import GcOptions, run_gc
from smidr_ci.builds.host import Host
from smidr_ci.caches.index import CacheIndex
from smidr_ci.caches.lru import Caps
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.home import Home

DAY_S = 86_400
SPAN_DAYS = 100


def main() -> None:
    """Print each figure, and at last the ratios."""
    options = _options()
    if options.measure:
        print(json.dumps(_measured(MEASUREMENTS[options.measure], options.tree, options.files)))
        return
    place = Path(tempfile.mkdtemp(prefix="smidr-caches-", dir=options.place))
    try:
        _report(place, options.files, options.rounds)
    finally:
        shutil.rmtree(place)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--place", default=None, help="directory on the disk to measure")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--tree", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _report(place: Path, files: int, rounds: int) -> None:
    tree = place / "home" / "sstate-cache"
    took = _timed(lambda: make_tree(tree, files))
    print(f"made {files} files in {took:.1f} s")
    _settle()
    print(_line("full scan", scan := _run("scan", tree, files)))
    time.sleep(2.5)  # younger folders are looked into again
    _run("stats", tree, files)
    print(_line("stats from the index", stats := _run("stats", tree, files)))
    shutil.rmtree(place / "home")
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name in (
            "gc-half",
            "find-half",
            "gc-size",
            "gc-tenth",
            "find-tenth",
            "gc-all",
            "find-all",
        ):
            make_tree(tree, files)
            _settle()
            found = _run(name, tree, files)
            print(_line(name, found))
            if name not in best or found["seconds"] < best[name]["seconds"]:
                best[name] = found
            shutil.rmtree(place / "home")
    print(f"scan of a million: {scan['seconds'] * 1e6 / files:.1f} s (goal 60)")
    print(f"stats: {stats['seconds']:.2f} s (goal 1), peak {stats['peak_mb']:.0f} MB")
    for ours, theirs in (
        ("gc-half", "find-half"),
        ("gc-size", "find-half"),
        ("gc-tenth", "find-tenth"),
        ("gc-all", "find-all"),
    ):
        ratio = best[ours]["seconds"] / best[theirs]["seconds"]
        print(f"{ours} / {theirs}: {ratio:.2f} (goal 1)")
    print(f"peak memory: {max(item['peak_mb'] for item in best.values()):.0f} MB (goal 200)")


def make_tree(tree: Path, files: int) -> None:
    """Fill a directory with objects and their signatures."""
    now = time.time()
    step = SPAN_DAYS * DAY_S / max(files // 2, 1)
    for number in range(files // 2):
        name = hashlib.sha256(b"%d" % number).hexdigest()
        folder = f"{tree}/{name[:2]}/{name[2:4]}"
        os.makedirs(folder, exist_ok=True)
        path = (
            f"{folder}/sstate:recipe-{number % 900}:core2-64-poky-linux:1.0:r0:core2-64:12:"
            f"{name}_populate_sysroot.tar.zst"
        )
        used = now - number * step
        for target, size in ((path, 900), (f"{path}.siginfo", 200)):
            with open(target, "wb") as file:
                file.write(bytes(size))
            os.utime(target, (used, used))


def _scan(tree: Path, files: int) -> None:
    totals = CacheIndex(tree.parent / "cache-index.db").refresh("sstate", tree, full=True)
    assert totals.files == files


def _stats(tree: Path, files: int) -> None:
    totals = CacheIndex(tree.parent / "cache-index.db").refresh("sstate", tree)
    assert totals.files == files


def _gc(caps: Caps, percent: int = 50) -> Callable[[Path, int], None]:
    def collect(tree: Path, files: int) -> None:
        agent = AgentConfig.model_validate({"cache": {"gc_below_free": 0}})
        host = Host(Home(tree.parent), agent)
        options = GcOptions(frozenset({"sstate"}), {"sstate": caps})
        (done,) = run_gc(host, options, CancelToken())
        assert not done.problem
        assert abs(done.files * 100 / files - percent) < 1

    return collect


def _gc_to(percent: int) -> Callable[[Path, int], None]:
    """Collect by size: each file takes a block of 4 KiB."""
    return lambda tree, files: _gc(Caps(max_size=files * 4096 * percent // 100), 100 - percent)(
        tree, files
    )


def _find(*arguments: str) -> Callable[[Path, int], None]:
    def delete(tree: Path, _files: int) -> None:
        subprocess.run(["find", str(tree), *arguments, "-delete"], check=True)

    return delete


MEASUREMENTS: dict[str, Callable[[Path, int], None]] = {
    "scan": _scan,
    "stats": _stats,
    "gc-half": _gc(Caps(max_age_s=SPAN_DAYS * DAY_S / 2)),
    "gc-size": _gc_to(50),
    "gc-tenth": _gc_to(90),
    "gc-all": _gc(Caps(max_age_s=-DAY_S), 100),
    "find-half": _find("-type", "f", "-not", "-newermt", f"-{SPAN_DAYS // 2} days"),
    "find-tenth": _find("-type", "f", "-not", "-newermt", f"-{SPAN_DAYS * 9 // 10} days"),
    "find-all": _find(),
}


def _measured(work: Callable[[Path, int], None], tree: Path, files: int) -> dict[str, float]:
    seconds = _timed(lambda: work(tree, files))
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "peak_mb": own.ru_maxrss / 1024,
    }


def _run(name: str, tree: Path, files: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--tree", str(tree)]
    done = subprocess.run(
        [*command, "--files", str(files)], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _line(name: str, found: dict[str, Any]) -> str:
    return (
        f"{name:22} {found['seconds']:8.2f} s  {found['cpu_s']:8.2f} s CPU"
        f"  {found['peak_mb']:6.0f} MB"
    )


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def _settle() -> None:
    os.sync()


if __name__ == "__main__":
    main()
