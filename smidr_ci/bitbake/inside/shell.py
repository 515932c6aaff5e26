"""`smidr shell`: a command, or bash, in the environment that BitBake would get."""

from __future__ import annotations

import os
import subprocess
import sys

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

__all__ = ["main"]

_CANNOT_START = 127


def main(folder: str, command: list[str]) -> int:
    """Become the command; returns only when that is impossible, with the reason printed."""
    os.umask(0o022)
    plan = Control(folder).read_plan()
    bitbake, topdir = str(plan["bitbake"]), str(plan["topdir"])
    environment = clean_environment(plan)
    if plan.get("init_script"):
        environment = _sourced(plan, environment)
    else:
        environment = bare_environment(environment, bitbake, topdir)
    names = [str(name) for name in plan.get("passthrough") or []]
    environment = with_passthrough(environment, names, bitbake_version(bitbake))
    environment["TERM"] = os.environ.get("TERM") or "dumb"
    command = command or [environment["SHELL"]]
    try:
        os.chdir(topdir)
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's own command
    except OSError as error:
        sys.stderr.write("smidr: " + command[0] + ": " + (error.strerror or str(error)) + "\n")
    return _CANNOT_START


def _sourced(plan: dict[str, object], environment: dict[str, str]) -> dict[str, str]:
    script = str(plan["init_script"])
    command = init_command(plan, environment)
    if command is None:
        sys.exit("smidr: the builder image has no bash, which " + script + " needs")
    done = subprocess.run(
        command,
        env={**environment, "BBPATH": str(plan["topdir"])},
        cwd=os.path.dirname(script),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    chatter, dump = split_dump(done.stdout)
    if done.returncode != 0:
        sys.stderr.buffer.write(chatter + dump)
        sys.exit(f"smidr: {script} ended with exit code {done.returncode}")
    return parse_environment(dump)
