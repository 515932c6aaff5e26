"""What an agent costs while it has nothing to do, and how fast it answers with a long history."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.samples import Bound, Samples
from benchmarks.site import REPOSITORY, Site
from smidr_ci.api.sockets import connect_unix
from smidr_ci.builds.model import BuildRecord, BuildState, StageRecord
from smidr_ci.builds.store import BuildStore
from smidr_ci.home import Home

__all__ = ["idle_rows", "running_agent"]

_READY_LIMIT_S: Final = 60.0
_STARTS: Final = 5
_LISTS: Final = 50
_PAGE: Final = 50


@contextlib.contextmanager
def running_agent(site: Site) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """An agent of the site's home, and the seconds from its start until it was ready."""
    begun = time.perf_counter()
    log = (site.folder / "agent.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "smidr_ci", "daemon"],
        env={**os.environ, "SMIDR_HOME": str(site.home), "PYTHONPATH": str(REPOSITORY)},
        stdout=log,
        stderr=log,
    )
    try:
        while _get(site.home, "/readyz") is None:
            if time.perf_counter() - begun > _READY_LIMIT_S or process.poll() is not None:
                raise SystemExit(f"the agent does not start: see {site.folder / 'agent.log'}")
            time.sleep(0.01)
        yield process, time.perf_counter() - begun
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        log.close()


def idle_rows(site: Site, *, builds: int, idle_s: float) -> Iterator[Bound]:
    """Start, CPU and memory of an idle agent, and the time of a list with so many builds."""
    BuildStore.at(Home(site.home)).close()  # the first start of all would make the database
    starts = []
    for _ in range(_STARTS):
        with running_agent(site) as (_, seconds):
            starts.append(seconds)
    yield Bound("agent, start to ready", Samples(tuple(starts)).median, "s", at_most=1.5)
    _fill_history(Home(site.home), builds)
    with running_agent(site) as (process, _):
        found = [_timed_list(site.home) for _ in range(_LISTS)]
        label = f"agent, a page of {_PAGE} from {builds:,} builds"
        yield Bound(label, Samples(tuple(found)).median * 1000, "ms", at_most=50)
        before = _cpu_s(process.pid)
        time.sleep(idle_s)
        share = (_cpu_s(process.pid) - before) / idle_s * 100
        yield Bound("agent, idle", share, "% of a CPU", at_most=0.5)
        yield Bound("agent, idle", _resident_bytes(process.pid) / 1e6, "MB", at_most=100)


def _fill_history(home: Home, count: int) -> None:
    store = BuildStore.at(home)
    now = datetime.now(UTC)
    for number in range(count):
        begun = now - timedelta(minutes=count - number)
        stage = StageRecord("building", begun, begun + timedelta(seconds=30))
        store.add(
            BuildRecord(
                build_id=f"customer{number % 7}-{number:08x}",
                customer=f"customer{number % 7}",
                project=f"project{number % 20}",
                targets=("core-image-minimal",),
                state=BuildState.COMPLETED if number % 5 else BuildState.FAILED,
                created=begun,
                started=begun,
                ended=begun + timedelta(seconds=30),
                stages=(stage,),
                config_text="name: project\n" * 100,
            )
        )
    store.close()


def _timed_list(home: Path) -> float:
    begun = time.perf_counter()
    answer = _get(home, f"/api/v1/builds?limit={_PAGE}")
    seconds = time.perf_counter() - begun
    assert answer is not None
    assert len(answer["builds"]) == _PAGE
    return seconds


def _get(home: Path, path: str) -> Any:  # noqa: ANN401 - JSON
    """The answer's JSON; None when there is none."""
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connect_unix(home / "agent.sock")
        connection.request("GET", path)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
