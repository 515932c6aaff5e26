"""The runners of this host, put together: what `ports.LocalRunnersMaker` asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from smidr_ci.builds.host import Host
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.forges.github.runners.bodies import Body
from smidr_ci.forges.github.runners.container import Containers
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.ports import Downloads, Runners
from smidr_ci.forges.github.runners.process import Processes
from smidr_ci.forges.github.runners.slots import Slots
from smidr_ci.forges.github.runners.supervisor import Supervisor

__all__ = ["local_runners"]

_LOCK: Final = threading.Lock()
_SLOTS: Final[dict[Path, Slots]] = {}
"""By home: the slots are for all registrations of a host together."""


def local_runners(registration: str, host: Callable[[], Host], downloads: Downloads) -> Runners:
    """See `ports.LocalRunnersMaker`."""

    def settings() -> RunnerSettings:
        return host().agent.github.runners

    now = host()
    with _LOCK:
        slots = _SLOTS.setdefault(now.home.root, Slots())
    installs = Installs(settings, now.home.root / "official-runners", downloads, now.clock)
    bodies: dict[str, Body] = {
        "process": Processes(host),
        "container": Containers(host),
    }
    return Supervisor(registration, host, installs, bodies, slots)
