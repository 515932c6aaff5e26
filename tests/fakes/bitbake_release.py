"""A BitBake release that does what a script says: for tests of the driver without a container."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smidr_ci.bitbake.driver_files import install
from smidr_ci.bitbake.plan import Plan

__all__ = ["DriverSite"]

_ENOUGH_S = 60.0
_BITBAKE = """\
import os, sys, json, time, signal, subprocess
topdir = os.getcwd()
with open(os.path.join(topdir, "called.jsonl"), "a") as out:
    seen = {"arguments": sys.argv[1:], "environment": dict(os.environ), "umask": os.umask(0o22)}
    out.write(json.dumps(seen) + "\\n")
"""


@dataclass
class DriverSite:
    """Directories as the driver finds them, and a fake release whose client runs `script`."""

    root: Path
    version: str = "2.8.1"
    python: str = sys.executable
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.topdir / "conf", self.control, self.home):
            folder.mkdir(parents=True)
        tools = self.root / "tools"
        tools.mkdir()
        (tools / "python3").symlink_to(self.python)
        ui = self.bitbake / "lib" / "bb" / "ui"
        ui.mkdir(parents=True)
        (ui / "__init__.py").touch()
        (self.bitbake / "lib" / "bb" / "__init__.py").write_text(
            f'__version__ = "{self.version}"\n'
        )
        self.script("")

    @property
    def bitbake(self) -> Path:
        return self.root / "bitbake"

    @property
    def topdir(self) -> Path:
        return self.root / "build"

    @property
    def control(self) -> Path:
        return self.root / "control"

    @property
    def home(self) -> Path:
        return self.root / "home"

    def script(self, body: str) -> None:
        """What `bin/bitbake` does, after it has noted how it was called."""
        path = self.bitbake / "bin" / "bitbake"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_BITBAKE + body)

    @contextmanager
    def started(self, **plan: Any) -> Iterator[subprocess.Popen[str]]:
        """The running driver."""
        settings: dict[str, Any] = {
            "build_id": "b",
            "targets": ("image",),
            "bitbake": str(self.bitbake),
            "init_script": None,
            "topdir": str(self.topdir),
            "interrupt_grace_s": 30.0,
            "kill_grace_s": 30.0,
        }
        install(self.control)
        (self.control / "plan.json").write_text(Plan(**{**settings, **plan}).to_json())
        driver = str(self.control / "driver" / "driver.py")
        base = {"PATH": f"{self.root / 'tools'}:/usr/bin:/bin", "HOME": str(self.home)}
        with subprocess.Popen(
            [self.python, "-E", "-s", driver],
            env={**base, **self.environment},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, **plan: Any) -> int:
        """Run to the end; the driver's exit code."""
        with self.started(**plan) as process:
            return process.wait(_ENOUGH_S)

    def stop(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> None:
        """Send the driver a signal."""
        process.send_signal(number)

    def wait_for(self, name: str) -> None:
        """Wait until BitBake has made a file in TOPDIR."""
        deadline = time.monotonic() + _ENOUGH_S
        while not (self.topdir / name).exists():
            assert time.monotonic() < deadline, f"no {name}; {self.console}"
            time.sleep(0.01)

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.control / "result.json").read_text())
        return found

    @property
    def calls(self) -> list[dict[str, Any]]:
        lines = (self.topdir / "called.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def console(self) -> str:
        path = self.control / "console.log"
        return path.read_text() if path.exists() else ""

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = (self.control / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
