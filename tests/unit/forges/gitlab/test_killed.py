"""The agent's process is killed, again and again, at random moments of a job."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.gitlab import agent as program
from tests.fakes.gitlab.server import GitLabServer, serve
from tests.fakes.gitlab.site import TOKEN, payload

LINES = 5000
ROOT = Path(program.__file__).parents[3]


def begin(home: Path, server: GitLabServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, program.__file__, str(home), server.url, TOKEN],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def build(root: Path, ended: threading.Event) -> None:
    """A build that goes on whatever happens to the agent: it writes a log, then it is done."""
    while not (found := list(root.iterdir())):
        if ended.wait(0.01):
            return
    with (found[0] / "console.log").open("ab", buffering=0) as console:
        for number in range(LINES):
            console.write(f"line {number} of the log, with ä and hunter22\n".encode())
            if number % 10 == 0 and ended.wait(0.02):
                return
    (found[0] / "done").touch()


@pytest.mark.parametrize("seed", [1, 2])
def test_101_a_job_survives_the_killing_of_its_agent_ten_times(tmp_path: Path, seed: int) -> None:
    (tmp_path / "builds").mkdir()
    moments = random.Random(seed)
    ended = threading.Event()
    with serve() as server:
        server.state.add_runner(TOKEN)
        job = payload()
        job["variables"] += [
            {"key": "P", "value": "hunter22", "masked": True},
            {"key": "FF_TIMESTAMPS", "value": "false"},
        ]
        queued = server.add_job(job)
        builder = threading.Thread(target=build, args=(tmp_path / "builds", ended))
        builder.start()
        agent = begin(tmp_path, server)
        try:
            for _ in range(10):
                # Some die before they could do anything, some in the middle of the log.
                with server.lock:
                    server.lock.wait_for(lambda: queued.is_over, moments.uniform(0.5, 3.0))
                agent.kill()
                agent.wait()
                agent = begin(tmp_path, server)
            server.wait_until(lambda: queued.is_over, 60)
            server.wait_until(lambda: len(server.asked("request")) > 0)
        finally:
            ended.set()
            agent.kill()
            agent.wait()
            builder.join()
        assert (queued.state, queued.finals, queued.checksum_matches) == ("success", 1, True)
        assert len(list((tmp_path / "builds").iterdir())) == 1
        numbers = re.findall(r"^line (\d+) of", queued.trace, re.MULTILINE)
        shown = [int(number) for number in numbers]
        assert shown == list(range(LINES))
        assert "hunter22" not in queued.trace
        assert queued.trace.count("Job succeeded") == 1
