"""Where jobs of runners reach the agent: its own socket, or one that is for them alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.forges.github.runners.surroundings import job_user, runners_directory

__all__ = ["Door", "agent_socket", "door_of"]

_FOLDER: Final = ".agent"
"""No registration's name begins with a dot."""


@dataclass(frozen=True)
class Door:
    """A second socket of the agent, where callers can do only what a step needs."""

    path: Path
    """Alone in its directory, which containers of runners have mounted."""
    uid: int
    gid: int
    within: Path
    """What callers may name of this host lies below."""


def door_of(host: Host) -> Door | None:
    """None when jobs are the agent's own user, and see its own socket.

    Raises `SmidrError` for a user that there is not.
    """
    settings: RunnerSettings = host.agent.github.runners
    user = job_user(settings, host)
    is_other = user.uid != os.geteuid() and settings.directory is not None
    if settings.mode != "container" and not is_other:
        return None
    within = runners_directory(settings, host)
    return Door(within / _FOLDER / "agent.sock", user.uid, user.gid, within)


def agent_socket(host: Host) -> Path:
    """The socket that a job finds; raises as `door_of`."""
    door = door_of(host)
    return host.home.socket if door is None else door.path
