"""What a runner finds around it: its user, its environment, its directories."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.containers.runtime import User
from smidr_ci.containers.user import builder_user
from smidr_ci.errors import ConfigError
from smidr_ci.forges.github.runners.folder import RunnerFolder
from smidr_ci.forges.github.runners.strays import MARK

__all__ = [
    "CONFIG_VARIABLE",
    "job_user",
    "own_tree",
    "runner_environment",
    "runners_directory",
    "total_slots",
]

CONFIG_VARIABLE: Final = "ACTIONS_RUNNER_INPUT_JITCONFIG"
"""actions/runner, CommandSettings.cs: read, masked in logs, and taken out of the environment."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def runners_directory(settings: RunnerSettings, host: Host) -> Path:
    """Where the runners of all registrations work, `<registration>/<name>/`."""
    return settings.directory or host.home.root / "runners"


def total_slots(host: Host) -> int:
    """How many runners there may be on the host."""
    slots = host.agent.github.runners.slots
    return host.side_by_side if slots is None else slots


def job_user(settings: RunnerSettings, host: Host) -> User:
    """Who jobs run as; raises `HostError` for a setting that names nobody."""
    found = builder_user(host.environ, settings.user or host.agent.engine.builder_user)
    if settings.user is not None and os.geteuid() != 0:
        wanted = builder_user({}, settings.user, process_ids=(0, 0))
        if (wanted.uid, wanted.gid) != (found.uid, found.gid):
            raise ConfigError(
                f"jobs can't run as {settings.user}: only root can run them as somebody else",
                where=str(host.home.agent_config),
                hint="Take github.runners.user out, or use the mode `container`.",
            )
    return found


def runner_environment(
    folder: RunnerFolder,
    user: User,
    settings: RunnerSettings,
    environ: Mapping[str, str],
    socket: Path,
) -> dict[str, str]:
    """All that a runner gets: nothing of the agent's but proxies and the operator's list."""
    names = [*_PROXIES, *(name.upper() for name in _PROXIES), *settings.environment]
    name = _login_of(user)
    return {
        **{each: environ[each] for each in names if environ.get(each)},
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": str(folder.home),
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/bash",
        MARK: str(folder.path),
        "SMIDR_AGENT_SOCKET": str(socket),
        # Runner.Listener's exit code 7 is told as it is.
        "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1",
    }


def _login_of(user: User) -> str:
    try:
        return pwd.getpwuid(user.uid).pw_name
    except KeyError:
        return user.name


def own_tree(top: Path, user: User) -> None:
    """Give a new tree to the job's user; nothing to do when that is who we are."""
    if (user.uid, user.gid) == (os.geteuid(), os.getegid()):
        return
    # From the bottom: what a directory holds is given away while nobody else can change it.
    for _, folders, files, handle in os.fwalk(top, topdown=False):
        for name in (*files, *folders):  # a link to a directory is among these, and not entered
            os.chown(name, user.uid, user.gid, dir_fd=handle, follow_symlinks=False)
    os.chown(top, user.uid, user.gid, follow_symlinks=False)
