"""A GitLab on loopback, and this host as a user registered it: `smidr runner run`, real Docker."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.gitlab.forge import API_TOKEN, GitLabForge, hello_files, open_forge
from tests.fakes.gitlab.server import FakeJob
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Running, Smidr

__all__ = ["Site", "is_whole", "open_lab", "slow", "text_of"]

TOKEN = "glrt-abcdefghij0123456789"
_JOB_S = 240.0

# Other tests run on the host as well, and their disk is theirs to watch.
_SETTINGS = "limits: {max_memory_pressure: 0, min_free_disk: 1G, min_free_disk_percent: 0}\n"


@dataclass
class Site:
    """A forge, and this host as a user registered it."""

    forge: GitLabForge
    smidr: Smidr
    files: Path
    root: Path
    agents: list[Running] = field(default_factory=list)

    def start_agent(self) -> Running:
        log = (self.root / f"agent-{len(self.agents)}.log").open("w")
        with log:
            self.agents.append(self.smidr.start("runner", "run", output=log))
        return self.agents[-1]

    def stop_agent(self) -> None:
        agent = self.agents[-1]
        if agent.poll() is None:
            agent.send_signal(signal.SIGTERM)
            agent.wait(60)

    def wait_over(self, job: FakeJob, timeout_s: float = _JOB_S) -> FakeJob:
        self.forge.server.wait_until(lambda: job.is_over, timeout_s)
        return job

    def wait_trace(self, job: FakeJob, text: str, timeout_s: float = _JOB_S) -> None:
        self.forge.server.wait_until(lambda: text in job.trace, timeout_s)

    def run(self, name: str, **changes: object) -> FakeJob:
        sha = self.forge.push(self.files)
        job = self.forge.start_job(name, sha, **changes)  # type: ignore[arg-type]  # its keywords
        return self.wait_over(job)


@contextmanager
def open_lab(root: Path, hello: HelloProject, ci: str) -> Iterator[Site]:
    """A forge with the hello project and this `.gitlab-ci.yml`, and an agent that serves it."""
    bitbake, _, branch = hello.bitbake.rpartition("@")
    with open_forge(root / "forge") as forge:
        url = forge.share(Path(bitbake.removeprefix("file://")), "bitbake.git")
        files = hello_files(root / "project", hello.root, url, branch, ci)
        forge.server.state.add_runner(TOKEN)
        site = Site(forge, Smidr(root / "home", root, {}), files, root)
        site.smidr.home.mkdir(mode=0o700)
        (site.smidr.home / "agent.yaml").write_text(_SETTINGS)
        (root / "api-token").touch(mode=0o600)
        (root / "api-token").write_text(API_TOKEN)
        command = ["runner", "register", "--url", forge.url, "--name", "lab", "--non-interactive"]
        answer = site.smidr(
            *command, "--api-token-file", str(root / "api-token"), SMIDR_RUNNER_TOKEN=TOKEN
        )
        assert answer.code == 0, answer.text
        site.start_agent()
        try:
            yield site
        finally:
            site.stop_agent()


def text_of(job: FakeJob) -> str:
    """The trace as a reader sees it."""
    lines = []
    for line in job.trace.split("\n"):
        plain = re.sub(r"^\S+Z [0-9a-f]{2}[OE][ +]", "", line)
        plain = re.sub(r"section_(?:start|end):\d+:[^\r]*\r", "", plain)
        lines.append(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", plain))
    return "\n".join(lines)


def is_whole(job: FakeJob) -> bool:
    """Whether the trace came complete and once, and the result once."""
    return job.finals == 1 and job.checksum_matches is True


def slow(site: Site) -> None:
    """Make a task take some seconds, anew each time."""
    recipe = site.files / "meta-hello" / "recipes" / "init" / "init_1.0.bb"
    text = recipe.read_text().partition("\n# slow")[0]
    stamp = time.monotonic_ns()
    recipe.write_text(f"{text}\n# slow\ndo_compile:append() {{\n    sleep 8 # {stamp}\n}}\n")
