"""How long a GitLab job waits for BitBake: from the answer that hands it out to its first line.

    python -m benchmarks.pickup [--rounds 5] [--json FILE]

A GitLab on loopback, an agent of its own, image, layers and caches warm, a new commit for each job.
The parts follow one another: `sources` (acknowledged, checked out, ordered), `preparation` (layers,
image, build directory), `container` (made and started, up to the driver's first words), `BitBake
starts` (its server and its user interface), `first line` (from there to its first output). The last
two are BitBake's own: its server's idle thread looks for work once a second (bb/server/process.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.samples import Bound, Samples, table
from tests.fakes.gitlab.lab import Site, open_lab
from tests.fakes.gitlab.server import FakeJob
from tests.fakes.hello import EXAMPLE, HelloProject, run_prepare

__all__ = ["main", "pickup_rows"]

_LIMIT_S: Final = 3.0
_PATIENCE_S: Final = 300.0
_LOOK_S: Final = 0.002
_CI: Final = """\
include: {local: gitlab-template.yml}

image:
  extends: .smidr-build
  variables: {SMIDR_TARGET: hello-image}
"""
PARTS: Final = ("sources", "preparation", "container", "BitBake starts", "first line")


def pickup_rows(folder: Path, rounds: int) -> Iterator[Bound]:
    """The whole, and its parts; medians of the rounds."""
    hello = _hello(folder)
    found: list[dict[str, float]] = []
    with open_lab(folder, hello, _CI) as site:
        _timed(site, "the first makes all warm")
        for number in range(rounds):
            found.append(_timed(site, f"round {number + 1}"))
            shown = ", ".join(f"{name} {found[-1][name]:.2f} s" for name in PARTS)
            sys.stderr.write(f"round {number + 1}/{rounds}: {shown}\n")
    whole = Samples(tuple(sum(parts.values()) for parts in found)).median
    yield Bound("job to BitBake's first line", whole, "s", at_most=_LIMIT_S)
    for name in PARTS:
        yield Bound(f"- {name}", Samples(tuple(parts[name] for parts in found)).median, "s")


def _hello(folder: Path) -> HelloProject:
    root = folder / "hello"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("work", "__pycache__"))
    run_prepare(root, root / "work", "wheel")
    return HelloProject(root, f"{(root / 'work' / 'bitbake.git').as_uri()}@main")


def _timed(site: Site, message: str) -> dict[str, float]:
    """Seconds of each part for one job."""
    job = site.forge.start_job("image", site.forge.push(site.files, message))
    control, first_line = _first_line(site, job)
    site.wait_over(job, _PATIENCE_S)
    if job.state != "success":
        raise SystemExit(f"the job failed:\n{job.trace}")
    record = site.smidr("status", "--json", control.parent.name).json
    stages = {item["name"]: _seconds(item["started"]) for item in record["stages"]}
    events = [json.loads(line) for line in (control / "events.jsonl").read_text().splitlines()]
    moments = (
        job.handed_out,
        stages["preparing"],
        stages["building"],
        _event(events, "phase"),
        _event(events, "ui"),
        first_line,
    )
    return {
        name: end - begin for name, begin, end in zip(PARTS, moments[:-1], moments[1:], strict=True)
    }


def _first_line(site: Site, job: FakeJob) -> tuple[Path, float]:
    """The job's control directory, and when its console had something in it."""
    deadline = time.monotonic() + _PATIENCE_S
    control: Path | None = None
    while time.monotonic() < deadline:
        control = control or _control_of(site, job)
        console = control / "console.log" if control else None
        if control and console and console.exists() and console.stat().st_size:
            return control, time.time()
        time.sleep(_LOOK_S)
    raise SystemExit(f"BitBake says nothing:\n{job.trace}")


def _control_of(site: Site, job: FakeJob) -> Path | None:
    for state in (site.smidr.home / "jobs").glob(f"*-{job.id}/state.json"):
        build_id = json.loads(state.read_text())["build_id"]
        if build_id:
            return site.smidr.home / "builds" / str(build_id) / "control"
    return None


def _event(events: list[dict[str, Any]], name: str) -> float:
    return float(next(event["t"] for event in events if event["event"] == name))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 when the goal is not met."""
    parser = argparse.ArgumentParser(prog="benchmarks.pickup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(
        prefix="smidr-benchmark-", dir=options.work, ignore_cleanup_errors=True
    ) as work:
        rows = list(pickup_rows(Path(work), options.rounds))
    sys.stdout.write(f"{table(rows)}\n")
    if options.json:
        options.json.write_text(json.dumps({"rows": [row.to_dict() for row in rows]}, indent=1))
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
