"""GitHub's runners in containers of a real engine; the runner is a shell script."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import APIClient

from smidr_ci.api.listen import bind_door
from smidr_ci.builds.host import Host
from smidr_ci.config.agent import AgentConfig
from smidr_ci.containers.body import BUILD_LABEL, ROLE_LABEL
from smidr_ci.forges.github.runners.container import Containers
from smidr_ci.forges.github.runners.door import door_of
from smidr_ci.forges.github.runners.folder import RunnerFolder
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.job_containers import remove_job_containers
from smidr_ci.forges.github.runners.ports import LocalRunner, RunnerState
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.supervisor import Supervisor
from smidr_ci.forges.github.runners.watch import Timing
from smidr_ci.home import Home
from tests.fakes.github.runner_bench import wait_for

pytestmark = pytest.mark.docker

SECRET = "bm90LWEtcmVhbC1jb25maWd1cmF0aW9u" * 100
PROGRAM = """#!/bin/sh
[ "$1" = run ] || exit 9
[ ${#ACTIONS_RUNNER_INPUT_JITCONFIG} = SIZE ] || exit 8
unset ACTIONS_RUNNER_INPUT_JITCONFIG
echo "Current runner version: '2.336.0'"
mkfifo "$HOME/control"
exec 3<>"$HOME/control"  # held open: a line that comes between two readers would be lost
echo "2026-08-01 10:00:00Z: Listening for Jobs"
while read -r word rest <&3; do
  case $word in
    job) mkdir -p _diag; : > _diag/Worker_1.log; echo "2026-08-01 10:00:01Z: Running job: $rest";;
    do) sh -c "$rest" > "$HOME/out.new" 2>&1; mv "$HOME/out.new" "$HOME/out";;
    exit) exit "$rest";;
  esac
done
"""


def write_archive(path: Path) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("./bin/Runner.Listener")
        program = PROGRAM.replace("SIZE", str(len(SECRET))).encode()
        info.mode, info.size = 0o755, len(program)
        tar.addfile(info, io.BytesIO(program))
    path.write_bytes(out.getvalue())
    return hashlib.sha256(out.getvalue()).hexdigest()


class Bench:
    """One home with runners in containers."""

    def __init__(self, folder: Path, image: str, api: APIClient) -> None:
        self.api = api
        home = Home(folder / "home")
        home.root.mkdir()
        tarball = folder / "actions-runner-linux-x64-2.336.0.tar.gz"
        runners = {
            "mode": "container",
            "image": image,
            "slots": 2,
            "tarball": str(tarball),
            "sha256": write_archive(tarball),
            "memory": "256M",
            "cpus": 0.5,
        }
        limits = {"min_free_disk": 1, "min_free_disk_percent": 0, "max_memory_pressure": 0}
        agent = AgentConfig.model_validate({"github": {"runners": runners}, "limits": limits})
        self.host = Host(home, agent, {"PATH": os.environ["PATH"]})
        self.root = home.root / "runners" / "lab"
        self.supervisors: list[Supervisor] = []

    def supervisor(self) -> Supervisor:
        installs = Installs(
            lambda: self.host.agent.github.runners,
            self.host.home.root / "official-runners",
            tuple,
            self.host.clock,
        )
        bodies = {"container": Containers(lambda: self.host)}
        timing = Timing(tick_s=0.1)
        made = Supervisor("lab", lambda: self.host, installs, bodies, Slots(), timing)
        self.supervisors.append(made)
        made.open()
        return made

    def leave(self) -> None:
        while self.supervisors:
            self.supervisors.pop().close()

    def tell(self, line: str, name: str = "smidr-a") -> None:
        control = self.root / name / "home" / "control"
        wait_for(control.exists)
        control.write_text(f"{line}\n")

    def do(self, command: str, name: str = "smidr-a") -> str:
        """Have the job run a command; what it prints."""
        out = self.root / name / "home" / "out"
        out.unlink(missing_ok=True)
        self.tell(f"do {command}", name)
        wait_for(out.exists)
        return out.read_text().strip()

    def state(self, runners: Supervisor, *states: RunnerState) -> LocalRunner:
        def look() -> LocalRunner | None:
            found = runners.running().get("smidr-a")
            return found if found is not None and found.state in states else None

        found = wait_for(look, f"never {states}: {runners.running()}")
        assert isinstance(found, LocalRunner)
        return found

    def containers(self) -> list[str]:
        mine = {f"{ROLE_LABEL}=runner", f"io.smidr.owner={self.host.home.root}"}
        found = self.api.containers(all=True, filters={"label": sorted(mine)})
        return [str(item["Id"]) for item in found]


@pytest.fixture
def bench(tmp_path: Path, base_image: str, docker_client: APIClient) -> Iterator[Bench]:
    made = Bench(tmp_path, base_image, docker_client)
    door = door_of(made.host)
    assert door is not None
    with closing(bind_door(door)):
        yield made
    made.leave()
    for container in made.containers():
        docker_client.remove_container(container, v=True, force=True)
    made.host.engine.close()


def test_a_job_in_a_container_sees_its_directory_and_nothing_else(bench: Bench) -> None:
    runners = bench.supervisor()
    wait_for(lambda: runners.capacity().free == 2)
    runners.start("smidr-a", SECRET, ["smidr"])
    bench.state(runners, RunnerState.IDLE)
    folder = RunnerFolder(bench.root / "smidr-a")

    [container] = bench.containers()
    seen = bench.api.inspect_container(container)
    assert SECRET not in json.dumps(seen)
    assert seen["Config"]["Labels"][BUILD_LABEL] == "smidr-a"
    assert (seen["HostConfig"]["Memory"], seen["HostConfig"]["ReadonlyRootfs"]) == (2**28, True)

    assert "Read-only" in bench.do("touch /root-of-the-image")
    assert bench.do("echo x > /tmp/x && cat /tmp/x") == "x"
    assert bench.do("pwd") == str(folder.root)
    assert bench.do('test -S "$SMIDR_AGENT_SOCKET" && echo yes') == "yes"
    assert bench.do(f"ls {bench.host.home.root}") == "runners"
    assert bench.do("env | grep -c JITCONFIG") == "0"
    assert bench.do("cat .smidr-config").endswith("No such file or directory")
    assert bench.do("id -un && echo $HOME").split() == ["builder", str(folder.home)]

    bench.tell("job image")
    busy = bench.state(runners, RunnerState.BUSY)
    assert (busy.job, busy.had_job) == ("image", True)

    bench.leave()
    after = bench.supervisor()
    assert after.running()["smidr-a"].state is RunnerState.BUSY
    bench.tell("exit 5")
    ended = bench.state(after, RunnerState.EXITED)
    assert (ended.exit_code, ended.job) == (5, "image")
    after.stop("smidr-a")
    assert bench.containers() == []
    wait_for(lambda: os.listdir(bench.root) == [])


def test_what_is_left_of_containers_goes(bench: Bench) -> None:
    runners = bench.supervisor()
    wait_for(lambda: runners.capacity().free == 2)
    runners.start("smidr-a", SECRET, [])
    bench.state(runners, RunnerState.IDLE)
    runners.stop("smidr-a")
    wait_for(lambda: not bench.containers(), "an idle one was not stopped")
    wait_for(lambda: os.listdir(bench.root) == [])

    runners.start("smidr-a", SECRET, [])
    bench.state(runners, RunnerState.IDLE)
    bench.leave()
    RunnerFolder(bench.root / "smidr-a").remove(bench.root)
    bench.supervisor()
    wait_for(lambda: not bench.containers(), "one without a directory was not removed")


def test_a_runner_that_ends_at_once_is_told(bench: Bench) -> None:
    runners = bench.supervisor()
    wait_for(lambda: runners.capacity().free == 2)
    runners.start("smidr-a", "another configuration", [])
    assert bench.state(runners, RunnerState.EXITED).exit_code == 8
    assert bench.containers() == []
    runners.stop("smidr-a")
    assert runners.running() == {}


def test_containers_that_a_job_left_go_with_its_runner(
    bench: Bench, base_image: str, docker_client: APIClient
) -> None:
    root = bench.root / "smidr-a" / "root"
    (root / "_work").mkdir(parents=True)
    network = f"github_network_{os.urandom(16).hex()}"

    def make(source: Path, labels: dict[str, str], mode: str) -> str:
        host_config = docker_client.create_host_config(binds=[f"{source}:/__w"], network_mode=mode)
        made = docker_client.create_container(
            base_image, ["sleep", "600"], host_config=host_config, labels=labels
        )
        docker_client.start(made)
        return str(made["Id"])

    docker_client.create_network(network)
    kept = []
    try:
        job = make(root / "_work", {"abc123": ""}, network)
        # A build of ours that has a part of the checkout mounted, and somebody else's.
        kept = [
            make(root / "_work", {BUILD_LABEL: "acme-12345678"}, "none"),
            make(bench.root, {}, "none"),
        ]
        assert remove_job_containers(bench.host, root) == 1
        left = {item["Id"] for item in docker_client.containers(all=True)}
        assert job not in left
        assert set(kept) <= left
        assert docker_client.networks(names=[network]) == []
    finally:
        for container in kept:
            docker_client.remove_container(container, force=True)
        for found in docker_client.networks(names=[network]):
            docker_client.remove_network(found["Id"])
