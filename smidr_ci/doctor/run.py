"""All checks, at once, within one time limit."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.containers.runtime import User
from smidr_ci.doctor import disk, engine, kernel, tools
from smidr_ci.doctor.model import Check, CheckResult, Status, failed
from smidr_ci.engine import Engine
from smidr_ci.home import Home

__all__ = ["Subject", "host_checks", "run_checks"]

TIME_LIMIT_S: Final = 4.5


@dataclass(frozen=True)
class Subject:
    """What to look at, as the operator has set it up."""

    home: Home
    engine: Engine
    """With a short timeout."""
    user: User
    directories: Mapping[str, Path] = field(default_factory=dict)
    """Directories outside the home that builds write to, by name (`sstate`, `workspaces`)."""
    min_free_bytes: int = 10 * 1024**3
    """Below this no build starts."""
    default_base: str = "debian:bookworm-slim"
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    proc: Path = Path("/proc")


def host_checks(subject: Subject) -> list[Check]:
    """The checks of this room, in the order of the report."""
    places = {"smidr's home": subject.home.root, **subject.directories}
    return [
        Check("container engine", lambda: engine.check_engine(subject.engine), Status.FAIL),
        *(
            Check(f"disk of {name}", _bind_disk(name, path, subject), Status.FAIL)
            for name, path in places.items()
        ),
        Check("disk of the engine", lambda: disk.check_engine_disk(subject.engine)),
        Check("kernel", lambda: kernel.check_kernel(subject.proc)),
        Check("user namespaces", lambda: kernel.check_user_namespaces(subject.proc)),
        Check("inotify", lambda: kernel.check_inotify(subject.proc)),
        Check("memory", lambda: kernel.check_memory(subject.proc, os.cpu_count() or 1)),
        Check("git", lambda: tools.check_git(subject.environ)),
        Check("mmdebstrap", lambda: tools.check_mmdebstrap(subject.environ)),
        Check("registry", lambda: tools.check_registry(subject.default_base)),
        Check("builder user", lambda: tools.check_user(subject.user)),
        Check("locale", tools.check_locale),
    ]


def _bind_disk(name: str, path: Path, subject: Subject) -> disk.Look:
    return lambda: disk.check_directory(name, path, subject.min_free_bytes, subject.proc)


def run_checks(
    subject: Subject,
    more: Sequence[Check] = (),
    *,
    time_limit_s: float = TIME_LIMIT_S,
    clock: Clock | None = None,
) -> list[CheckResult]:
    """Run this room's checks and `more` (leftovers, say) at once; results in their order.

    A check that hangs is reported as such after `time_limit_s`; one that breaks, as failed.
    """
    clock = clock or SystemClock()
    deadline = clock.monotonic() + time_limit_s
    running = [_Running(check) for check in (*host_checks(subject), *more)]
    results: list[CheckResult] = []
    for one in running:
        left = max(0.0, deadline - clock.monotonic())
        results += one.results(left, time_limit_s)
    return results


class _Running:
    """A check in a thread of its own, which a hung file system may keep for ever."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: Sequence[CheckResult] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        name = self._check.name
        try:
            self._found = self._check.run()
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
            self._found = [failed(name, f"the check itself failed: {error}", "Report this.")]

    def results(self, wait_s: float, limit_s: float) -> Sequence[CheckResult]:
        self._thread.join(wait_s)
        if self._found is not None:
            return self._found
        check = self._check
        detail = f"no answer within {limit_s:g} s"
        return [CheckResult(check.name, check.if_hung, detail, "Find out what hangs there.")]
