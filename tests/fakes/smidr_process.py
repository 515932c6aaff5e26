"""The `smidr` program as a user runs it: a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["Answer", "Running", "Smidr", "kill_hard", "wait_until"]

_TIMEOUT_S = 300

Running = subprocess.Popen[str]


@dataclass(frozen=True)
class Answer:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs, for messages that may be in either."""
        return self.out + self.err

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Smidr:
    """Runs commands in a directory with a SMIDR_HOME."""

    home: Path
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, **more: str) -> Answer:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "smidr_ci", *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environ(more),
            timeout=_TIMEOUT_S,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, output: IO[str] | int = subprocess.PIPE) -> Running:
        """Start a command and let it run; `output` takes all that it says."""
        return subprocess.Popen(
            [sys.executable, "-m", "smidr_ci", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=self._environ({}),
        )

    def build(self, *arguments: str) -> dict[str, Any]:
        """`smidr build --json` that must succeed; its record."""
        answer = self("build", "--json", *arguments)
        assert answer.code == 0, answer.text
        record: dict[str, Any] = answer.json
        return record

    def newest(self) -> dict[str, Any]:
        """The newest build's whole record."""
        record: dict[str, Any] = self("status", "--json").json
        return record

    def _environ(self, more: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        root = Path(__file__).resolve().parents[2]
        own = {"SMIDR_HOME": str(self.home), "PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
        return {**kept, **own, **self.environment, **more}


_KEPT = ("PATH", "HOME", "LANG", "DOCKER_HOST", "TMPDIR", "http_proxy", "https_proxy", "no_proxy")


def wait_until(is_true: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition in another process; the test fails when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.05)


def kill_hard(process: subprocess.Popen[str]) -> None:
    """`kill -9`, and collect what is left of it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
