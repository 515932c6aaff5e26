"""`smidr daemon` as a process of its own, which a test may kill and start again."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from smidr_ci.api.local_client import LocalClient
from smidr_ci.builds.model import BuildRecord, BuildState
from tests.fakes.smidr_process import Running, Smidr, wait_until

__all__ = ["AgentProcess"]

_READY_S = 60.0
_END_S = 60.0


class AgentProcess:
    """Agents, one after the other, of one home; a context manager that ends the last one.

    `smidr` runs commands in the same home. What all the agents said is in `log`.
    """

    def __init__(self, smidr: Smidr, *options: str) -> None:
        self.smidr = smidr
        self.options = options
        self.log = smidr.home.parent / f"{smidr.home.name}-agent.log"
        self._process: Running | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self.kill()

    @property
    def client(self) -> LocalClient:
        """Calls to the agent by the client that commands use."""
        return LocalClient(self.smidr.home / "agent.sock")

    @property
    def pid(self) -> int:
        """Of the agent that was started last."""
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """All that the agents have logged so far."""
        return self.log.read_text() if self.log.exists() else ""

    def start(self) -> float:
        """Start one and wait until it answers; seconds that took."""
        assert not self.is_running(), "an agent runs already"
        began = time.monotonic()
        with self.log.open("a") as output:
            self._process = self.smidr.start("daemon", *self.options, output=output)
        client = self.client
        wait_until(
            lambda: not self.is_running() or client.answers(), "the agent's answer", _READY_S
        )
        assert self._process.poll() is None, self.said
        return time.monotonic() - began

    def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)
        self.wait_for_end()

    def stop(self) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_for_end()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait_for_end(self, timeout_s: float = _END_S) -> int:
        """Wait until the process has ended; its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent does not end:\n{self.said}") from None

    def submit(self, *arguments: str) -> str:
        """`smidr client start`; the build's id."""
        answer = self.smidr("client", "start", *arguments)
        assert answer.code == 0, answer.text
        prefix = "Build ID: "
        assert answer.out.startswith(prefix), answer.out
        assert answer.out.count("\n") == 1, answer.out
        return answer.out.removeprefix(prefix).strip()

    def record(self, build_id: str) -> BuildRecord:
        """The build's record, from the agent."""
        return self.client.get(build_id)

    def wait_for(self, build_id: str, *states: BuildState, timeout_s: float = 120.0) -> BuildRecord:
        """Wait until the build is in one of the states, or over; its record."""

        def is_there() -> bool:
            state = self.record(build_id).state
            return state in states or state.is_final

        what = f"{build_id} to be {' or '.join([*map(str, states), 'over'])}"
        wait_until(is_there, what, timeout_s)
        return self.record(build_id)

    def finish(self, build_id: str, timeout_s: float = 120.0) -> BuildRecord:
        """Wait until the build is over; its record."""
        return self.wait_for(build_id, timeout_s=timeout_s)

    def console(self, build_id: str) -> Path:
        """The file that the build's console goes to."""
        return self.smidr.home / "builds" / build_id / "control" / "console.log"

    def containers(self, docker: Any) -> list[Any]:
        """All containers of this home, ended or not; `docker` is the SDK's low-level client."""
        owner = f"io.smidr.owner={self.smidr.home.resolve()}"
        found: list[Any] = docker.containers(all=True, filters={"label": owner})
        return found
