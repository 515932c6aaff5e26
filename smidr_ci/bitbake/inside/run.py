"""One build inside the container: environment, phases, clean end, result."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from typing import Any

from .control import Control
from .environment import (
    bare_environment,
    bitbake_version,
    clean_environment,
    init_command,
    parse_environment,
    split_dump,
    with_passthrough,
)
from .memory import oom_kills
from .processes import Family
from .stopping import Stop
from .topdir import forget_code_cache, is_in_use, remove_leftovers, server_pid

__all__ = ["main"]

_SERVER_S = 30.0
_SERVER_END_S = 5.0
_SAVES_FIRST = (2, 12)
_MISNAMES_CACHE = (2, 12)
_KILL_S = 10.0
_CANNOT_START = 127
# After a fetch phase nothing more is fetched. Without BB_SRCREV_POLICY = "cache": under it BitBake
# keeps recipes with AUTOREV in the parse cache (bb/fetch2: get_autorev), where the next build, in
# which the branch has moved, would find them with another hash.
_OFFLINE = {"BB_NO_NETWORK": "1"}
_DEFAULTS: dict[str, Any] = {
    "init_script": None,
    "topdir": "/smidr/build",
    "phases": ["build"],
    "environment": {},
    "passthrough": [],
    "interrupt_grace_s": 60.0,
    "kill_grace_s": 15.0,
    "time_limit_s": None,
    "relay": None,
}


class CannotStartError(Exception):
    """BitBake can't be started; the text says why."""


def main(folder: str) -> int:
    """Run the plan in this control directory; the driver's exit code is BitBake's."""
    os.umask(0o022)  # OE-Core's sanity check
    control = Control(folder)
    family = Family()
    before = oom_kills()
    run = None
    error = ""
    try:
        run = Run(control, family)
        run.phases()
    except Exception as problem:  # noqa: BLE001 - whatever it was, the agent must hear of it
        is_told = isinstance(problem, (CannotStartError, OSError))
        error = str(problem) if is_told else f"{type(problem).__name__}: {problem}"
        control.event("error", message=error)
        sys.stderr.write("smidr: " + error + "\n")
    code = _CANNOT_START if error else run.code if run else 1
    result = {
        "exit_code": code,
        "phase": run.phase if run else "",
        "interrupted": bool(run and run.stop.is_asked),
        "timed_out": bool(run and run.stop.timed_out),
        "oom_kills": max(0, oom_kills() - before),
        "error": error,
    }
    control.write_result(result)
    return code


class Run:
    """The phases of one plan."""

    def __init__(self, control: Control, family: Family) -> None:
        self.plan = {**_DEFAULTS, **control.read_plan()}
        self.control = control
        self.family = family
        self.stop = Stop(self.plan, family, control)
        self.topdir = str(self.plan["topdir"])
        self.phase = ""
        self.code = 0
        self._console = control.open_console()
        self._version = bitbake_version(str(self.plan["bitbake"]))

    def phases(self) -> None:
        """Run one after the other until one fails or a stop is asked for."""
        if is_in_use(self.topdir):
            raise CannotStartError("another BitBake runs in the build directory " + self.topdir)
        remove_leftovers(self.topdir)
        try:
            self._start_relay()
            environment = self._environment()
            for phase in self.plan["phases"]:
                self.stop.look()
                if self.stop.is_asked:
                    self.code = self.code or 1
                    break
                self._run(str(phase), environment)
                if self.code != 0:
                    break
        finally:
            self._end()

    def _start_relay(self) -> None:
        """Lead BitBake to a unix socket; without it the build only finds less."""
        if self.plan["relay"] is None:
            return
        target, port = self.plan["relay"]
        package = os.path.dirname(os.path.abspath(__file__))
        driver = os.path.join(os.path.dirname(package), "driver.py")
        command = [sys.executable, "-E", "-s", driver, "relay", str(target), str(int(port))]
        self.family.start_helper(command, self._console)

    def _environment(self) -> dict[str, str]:
        plan, bitbake = self.plan, str(self.plan["bitbake"])
        if not os.path.isfile(os.path.join(bitbake, "bin", "bitbake")):
            raise CannotStartError("there is no bin/bitbake in " + bitbake)
        environment = clean_environment(plan)
        if plan["init_script"]:
            environment = self._sourced(str(plan["init_script"]), environment)
        else:
            environment = bare_environment(environment, bitbake, self.topdir)
        # OE-Core (wrynose on) puts the members of a Python set into its base configuration. Their
        # order changes with the hash seed, and with it the parse cache that BitBake looks for.
        environment["PYTHONHASHSEED"] = "0"
        names = ["PYTHONHASHSEED", *_OFFLINE, *map(str, plan["passthrough"])]
        return with_passthrough(environment, names, self._version)

    def _sourced(self, script: str, environment: dict[str, str]) -> dict[str, str]:
        """The environment after `. oe-init-build-env TOPDIR BITBAKE`; its chatter is dropped."""
        command = init_command(self.plan, environment)
        if command is None:
            raise CannotStartError("the builder image has no bash, which " + script + " needs")
        with tempfile.TemporaryFile() as out:
            environment = {**environment, "BBPATH": self.topdir}
            pid = self.family.start(
                command, environment, os.path.dirname(script), output=out.fileno()
            )
            code = self.stop.supervise(pid)
            out.seek(0)
            chatter, dump = split_dump(out.read())
            if self.stop.is_asked:
                return environment
            if code != 0:
                os.write(self._console, chatter + dump)
                raise CannotStartError(f"{script} ended with exit code {code}")
        return parse_environment(dump)

    def _run(self, phase: str, environment: dict[str, str]) -> None:
        self.phase = phase
        if self._version >= _MISNAMES_CACHE:
            forget_code_cache(self.topdir)
        self.control.event("phase", phase=phase, targets=list(self.plan["targets"]))
        python = shutil.which("python3", path=environment["PATH"]) or sys.executable
        launcher = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")
        events = self.control.path("events.jsonl")
        command = [python, launcher, events, str(self.plan["bitbake"]), *self._arguments(phase)]
        if phase == "build" and "fetch" in self.plan["phases"]:
            environment = {**environment, **_OFFLINE}
        pid = self.family.start(command, environment, self.topdir, self._console)
        self.code = self.stop.supervise(pid)
        self._outlive_server()
        self.control.event("phase-end", phase=phase, exit_code=self.code)

    def _arguments(self, phase: str) -> list[str]:
        what = ["--runall=fetch"] if phase == "fetch" else []
        targets = [str(target) for target in self.plan["targets"]]
        if not targets or any(target.startswith("-") for target in targets):
            raise CannotStartError("the plan names no target that BitBake could build")
        return [*what, *targets]

    def _outlive_server(self) -> None:
        """Wait until server and workers are gone; the server writes the parse cache at its end."""
        deadline = time.monotonic() + _SERVER_S
        if self._has_only_sleep_left():
            server = server_pid(self.topdir)
            if server is not None and self.family.kill(server):
                deadline = 0.0  # the hash and PR servers that it started end cleanly
        asked = None
        while not self.family.is_alone() and asked is None and time.monotonic() < deadline:
            asked = self.family.wait(deadline - time.monotonic())
        if asked is not None:
            self.stop.hear(asked)
        if not self.family.end_all(_SERVER_END_S):
            self.control.event("note", message="some processes of the build can't be ended")

    def _has_only_sleep_left(self) -> bool:
        """Whether the server has written all it will write, and takes a second to end.

        From 2.12 on it saves its caches before it sends the last event (bb/command.py,
        `finishAsyncCommand`); its idle thread then sleeps for a second (bb/server/process.py).
        """
        last = self.control.last_event()
        return self._version >= _SAVES_FIRST and last.get("event") == "ui-end" and last["complete"]

    def _end(self) -> None:
        self.family.kill_all(_KILL_S)
        self.family.end_helpers()
        remove_leftovers(self.topdir)
        os.fsync(self._console)
        os.close(self._console)
