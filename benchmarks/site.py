"""A prepared project with a SMIDR_HOME of its own, and smidr as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["REPOSITORY", "Run", "Site", "hello_site"]

REPOSITORY: Final = Path(__file__).resolve().parents[1]
_HELLO: Final = REPOSITORY / "examples" / "hello"
_IMAGE: Final = "hello-image"
_MEMORY_EVERY_S: Final = 0.05


@dataclass(frozen=True)
class Run:
    """One run of a program."""

    seconds: float
    code: int
    out: str
    peak_bytes: int
    """The largest resident set that was seen (VmHWM, proc(5))."""

    @property
    def record(self) -> dict[str, Any]:
        """What `--json` printed."""
        record: dict[str, Any] = json.loads(self.out)
        return record


@dataclass(frozen=True)
class Site:
    """Where a project's `smidr.yaml` lies, and the home that its builds use."""

    name: str
    folder: Path
    home: Path
    target: str

    def smidr(self, *arguments: str, check: bool = True, output: int = subprocess.PIPE) -> Run:
        """Run `smidr`, timed from the outside; a failure ends the benchmark."""
        begun = time.perf_counter()
        process = self.start(*arguments, output=output)
        watch = _PeakMemory(process.pid)
        out, err = process.communicate()
        run = Run(time.perf_counter() - begun, process.returncode, out or "", watch.stop())
        if check and run.code != 0:
            raise SystemExit(f"smidr {' '.join(arguments)} failed:\n{out}{err}")
        return run

    def start(self, *arguments: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start `smidr`."""
        return subprocess.Popen(
            [sys.executable, "-m", "smidr_ci", *arguments],
            cwd=self.folder,
            env={**os.environ, "SMIDR_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY)},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, *arguments: str) -> float:
        """Seconds of a build that succeeds."""
        return self.smidr("build", "-t", self.target, *arguments).seconds


class _PeakMemory:
    """Reads a process's high-water mark until it ends.

    The parent's own `ru_maxrss` of children would count what was resident before exec.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._over.wait(_MEMORY_EVERY_S):
            try:
                text = self._status.read_text()
            except OSError:
                return
            found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
            if found:
                self._peak = max(self._peak, int(found[1]) * 1024)


def hello_site(
    work: Path,
    name: str,
    *,
    target: str = _IMAGE,
    bitbake: str = "auto",
    base_image: str | None = None,
    change: Callable[[Path], None] = lambda _: None,
) -> Site:
    """A prepared copy of the hello project; `change` gets its layer before it is committed."""
    root = work / name / "project"
    shutil.copytree(_HELLO, root, ignore=shutil.ignore_patterns("work", "__pycache__"))
    change(root / "meta-hello")
    subprocess.run(
        [sys.executable, "prepare.py", "--bitbake", bitbake],
        cwd=root,
        check=True,
        stdout=sys.stderr,
    )
    folder = root / "work"
    config = folder / "smidr.yaml"
    text = config.read_text(encoding="utf-8")
    if target != _IMAGE:
        text = text[: text.index("artifacts:")]  # which another target doesn't make
    if base_image:
        text = text.replace("container:\n", f"container:\n  base_image: {base_image}\n")
    config.write_text(text, encoding="utf-8")
    return Site(name, folder, work / "home", target)
