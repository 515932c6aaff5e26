"""How long a page of a long history takes: in the store, and as an HTTP client gets it.

    python benchmarks/history.py [BUILDS]

Prints milliseconds (median and worst of 30 runs) for the first page and for one in the middle.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from smidr_ci.api.local_client import LocalClient
from smidr_ci.builds.model import (
    ArtifactRecord,
    BuildRecord,
    BuildState,
    SstateSummary,
    StageRecord,
)
from smidr_ci.builds.store import BuildStore
from smidr_ci.home import Home
from tests.fakes.http_agent import HttpAgent

BUILDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
NOW = datetime.now(UTC)


def record(number: int) -> BuildRecord:
    """A build as large as real ones are."""
    return BuildRecord(
        build_id=f"customer{number % 5}-{number:08x}",
        customer=f"customer{number % 5}",
        project="router",
        targets=("core-image-minimal",),
        state=BuildState.FAILED if number % 7 == 0 else BuildState.COMPLETED,
        created=NOW + timedelta(seconds=number),
        config_text="name: router\n" * 200,
        config_path="/srv/router/smidr.yaml",
        stages=tuple(StageRecord(name, NOW, NOW) for name in ("preparing", "building", "end")),
        sstate=SstateSummary(3000, 2900, 0, 100, 50),
        tasks={"total": 5000, "executed": 100, "from_sstate": 2900},
        layer_commits={f"layer{index}": "a" * 40 for index in range(10)},
        findings=tuple({"recipe": "zlib", "message": "x" * 500} for _ in range(5)),
        artifacts=tuple(ArtifactRecord(f"images/{index}", 1, "b" * 64) for index in range(20)),
    )


def measure(name: str, call: Callable[[], object]) -> None:
    """Print the median and the worst time of a call."""
    took = []
    for _ in range(30):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    print(f"{name:<42}{statistics.median(took):8.1f} ms median{max(took):8.1f} ms worst")


def main() -> None:
    """Fill a history and look at it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        home = Home(Path(folder) / "home")
        store = BuildStore.at(home)
        for number in range(BUILDS):
            store.add(record(number))
        middle = store.list(limit=BUILDS // 2)[-1].build_id
        stack.enter_context(HttpAgent(home))
        client = LocalClient(home.socket)
        client.list()  # the app is made with the first request
        print(f"{BUILDS} builds")
        measure("store: first page of 50", store.list)
        measure("store: page of 50 in the middle", lambda: store.list(before=middle))
        measure(
            "store: 50 of one customer, failed",
            lambda: store.list(customer="customer3", state=BuildState.FAILED),
        )
        measure("store: totals for metrics", store.totals)
        measure("client: first page of 50", client.list)
        measure("client: page of 50 in the middle", lambda: client.list(before=middle))
        measure("client: page of 1000", lambda: client.list(limit=1000))
        store.close()


if __name__ == "__main__":
    main()
