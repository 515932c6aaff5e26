"""The action in a job of a runner that the agent started: it finds that agent by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.containers.runtime import User
from smidr_ci.forges.github.runners.door import Door
from smidr_ci.forges.github.runners.process import Processes
from smidr_ci.trust import Trust
from tests.fakes.github.runner_bench import RunnerBench, wait_for
from tests.fakes.http_agent import HttpAgent
from tests.fakes.step_harness import ACTION, node

STEP = """
import os, subprocess
work = os.path.join(os.getcwd(), "_work", "bsp")
os.makedirs(work)
open(os.path.join(work, "smidr.yaml"), "w").write("name: demo")
for name in ("output", "state", "summary"):
    open(os.path.join(work, name), "w").close()
environment = {{
    **os.environ,
    "INPUT_CONFIG": "smidr.yaml", "INPUT_FAIL-ON": "error",
    "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": work, "GITHUB_REPOSITORY": "acme/bsp",
    "GITHUB_EVENT_NAME": "push", "GITHUB_SHA": "0" * 40, "GITHUB_RUN_ID": "555",
    "GITHUB_OUTPUT": os.path.join(work, "output"), "GITHUB_STATE": os.path.join(work, "state"),
    "GITHUB_STEP_SUMMARY": os.path.join(work, "summary"), "RUNNER_TEMP": work,
}}
with open({out!r}, "wb") as out:
    run = subprocess.run([{node!r}, {main!r}], env=environment, cwd=work, stdout=out, stderr=out)
open({out!r} + ".code", "w").write(str(run.returncode))
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RunnerBench]:
    node()
    made = RunnerBench(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("has_door", [False, True], ids=["agents-socket", "door"])
def test_a_step_orders_its_build_from_the_agent_that_started_its_runner(
    bench: RunnerBench, has_door: bool
) -> None:
    within = bench.runners_root
    door = Door(within / ".agent" / "agent.sock", os.geteuid(), os.getegid(), within)
    socket = door.path if has_door else bench.home.socket
    me = User(os.geteuid(), os.getegid())
    body = Processes(bench.host, socket=lambda _host: socket, user=lambda *_: me)
    with HttpAgent(bench.home, door=door if has_door else None) as agent:
        runners = bench.ready(body=body)
        remote = bench.start(runners)
        out = bench.folder / "out"
        main = str(ACTION / "action" / "main.js")
        remote.do(STEP.format(out=str(out), node=node(), main=main))
        orders = wait_for(lambda: agent.agent.orders)
        assert orders[0].directory == bench.place().root / "_work" / "bsp"
        assert orders[0].trust is (Trust.UNTRUSTED if has_door else Trust.TRUSTED)
        [record] = agent.agent.store.list()
        agent.agent.finish(record.build_id)
        code = wait_for(lambda: (path := Path(f"{out}.code")).exists() and path.read_text())
        assert f"is queued by the agent at {socket}." in out.read_text()
        assert code == "0", out.read_text()
        remote.tell("exit 0")
