"""Runners of a host in a test: real processes of a program that is no official runner."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smidr_ci.builds.host import Host
from smidr_ci.config.agent import AgentConfig
from smidr_ci.containers.runtime import User
from smidr_ci.forges.github.runners.bodies import Body
from smidr_ci.forges.github.runners.folder import RunnerFolder
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.ports import LocalRunner, RunnerDownload, RunnerState
from smidr_ci.forges.github.runners.process import Patience, Processes
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.supervisor import Supervisor
from smidr_ci.forges.github.runners.watch import Timing
from smidr_ci.home import Home
from tests.fakes.github.runner_program import Remote, jit_config, write_archive

__all__ = ["LONG_S", "RunnerBench", "wait_for"]

LONG_S = 60.0
_QUICK = Patience(interrupt_s=10.0, terminate_s=2.0, reap_s=20.0, restart_s=0.05, update_s=5.0)


def wait_for(what: Callable[[], Any], why: str = "") -> Any:
    """What the function gives once that is true; fails after a long time."""
    deadline = time.monotonic() + LONG_S
    pause = threading.Event()
    while not (found := what()):
        assert time.monotonic() < deadline, why or "it did not come about"
        pause.wait(0.02)
    return found


class RunnerBench:
    """One home, and the supervisors of one registration that come one after the other.

    Jobs are this very user, also when that is root.
    """

    def __init__(self, folder: Path, python: str = sys.executable, **settings: Any) -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.root.mkdir(exist_ok=True)
        self.tarball = folder / "actions-runner-linux-x64-2.336.0.tar.gz"
        if not self.tarball.exists():  # another process has the same bench
            write_archive(self.tarball, python=python)
        sha256 = hashlib.sha256(self.tarball.read_bytes()).hexdigest()
        runners = {"slots": 3, "tarball": str(self.tarball), "sha256": sha256, **settings}
        self.agent = AgentConfig.model_validate(
            {
                "github": {"runners": {k: v for k, v in runners.items() if v is not None}},
                "limits": {
                    "min_free_disk": 1,
                    "min_free_disk_percent": 0,
                    "max_memory_pressure": 0,
                },
                "engine": {"url": f"unix://{folder}/no-engine.sock"},
            }
        )
        self.runners_root = self.home.root / "runners"
        self.environ: dict[str, str] = {}
        self.offers: list[RunnerDownload] = []
        self.supervisors: list[Supervisor] = []
        self.remotes: dict[str, Remote] = {}

    def host(self) -> Host:
        return Host(self.home, self.agent, self.environ)

    def set(self, **settings: Any) -> None:
        """Change `github.runners`, as a reload of agent.yaml does."""
        runners = self.agent.github.runners.model_copy(update=settings)
        github = self.agent.github.model_copy(update={"runners": runners})
        self.agent = self.agent.model_copy(update={"github": github})

    def supervisor(
        self,
        name: str = "lab",
        *,
        slots: Slots | None = None,
        timing: Timing | None = None,
        body: Body | None = None,
        patience: Patience = _QUICK,
    ) -> Supervisor:
        """A new agent's: opened, with an official runner to start."""
        installs = Installs(
            lambda: self.agent.github.runners,
            self.home.root / "official-runners",
            lambda: self.offers,
            self.host().clock,
        )
        bodies = {"process": body or self.processes_of(patience)}
        made = Supervisor(
            name,
            self.host,
            installs,
            bodies,
            slots or Slots(),
            timing or Timing(tick_s=0.05),
        )
        self.supervisors.append(made)
        made.open()
        return made

    def processes_of(self, patience: Patience = _QUICK) -> Processes:
        """Jobs of this very user, also when that is root."""
        me = User(os.geteuid(), os.getegid())
        return Processes(self.host, patience=patience, user=lambda _settings, _host: me)

    def ready(self, **options: Any) -> Supervisor:
        """`supervisor`, once there is room."""
        made = self.supervisor(**options)
        wait_for(lambda: made.capacity().free, "there never was room for a runner")
        return made

    def remote(self, name: str) -> Remote:
        """Tells the runner of this name what to do; made before it starts."""
        if name not in self.remotes:
            self.remotes[name] = Remote(self.folder / f"{name}.fifo")
        return self.remotes[name]

    def start(self, runners: Supervisor, name: str = "smidr-a", **more: object) -> Remote:
        """Start one, and wait until it listens."""
        remote = self.remote(name)
        runners.start(name, jit_config(remote.control, **more), ["self-hosted", "smidr"])
        if more.get("at_once") is None:
            self.state(runners, name, RunnerState.IDLE)
        return remote

    def state(self, runners: Supervisor, name: str, *states: RunnerState) -> LocalRunner:
        """The runner, once it is in one of these states."""

        def look() -> LocalRunner | None:
            found = runners.running().get(name)
            return found if found is not None and found.state in states else None

        found = wait_for(look, f"{name} never was {states}")
        assert isinstance(found, LocalRunner)
        return found

    def place(self, name: str = "smidr-a", registration: str = "lab") -> RunnerFolder:
        """Where a runner's files are."""
        return RunnerFolder(self.runners_root / registration / name)

    def leave(self) -> None:
        """The agent's end, in good order."""
        while self.supervisors:
            self.supervisors.pop().close()

    def close(self) -> None:
        """End all runners, whoever started them."""
        self.leave()
        last = self.supervisor()
        for name in last.running():
            last.stop(name)
        wait_for(lambda: not list(self.runners_root.glob("lab/*/note.json")), "runners stay")
        self.leave()
        for remote in self.remotes.values():
            remote.close()

    def processes(self) -> list[int]:
        """All that still run in a directory of the bench, or were started there."""
        mark = os.fsencode(self.folder)
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    text = Path(f"/proc/{name}/cmdline").read_bytes()
                    text += Path(f"/proc/{name}/environ").read_bytes()
                    text += os.fsencode(Path(f"/proc/{name}/cwd").readlink())
                except OSError:
                    continue
                if mark in text and Path(f"/proc/{name}/stat").read_bytes()[-1:]:
                    found.append(int(name))
        return found
