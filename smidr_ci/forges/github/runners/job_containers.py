"""Containers that a job left: those of `container:` and `services:`, when its runner was killed."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from smidr_ci.builds.host import Host
from smidr_ci.containers.body import BUILD_LABEL
from smidr_ci.errors import EngineError

__all__ = ["remove_job_containers"]

log = logging.getLogger(__name__)

_NETWORK: Final = re.compile(r"github_network_[0-9a-f]{32}", re.ASCII)
"""actions/runner, ContainerOperationProvider.cs: one per job."""


def remove_job_containers(host: Host, root: Path) -> int:
    """Remove containers that mount the runner's directory, and their networks; how many.

    smidr's own are left: a build ends by its own rules. An engine that does not answer is no
    reason to keep the runner's directory.
    """
    try:
        with host.engine.calling("list containers"):
            listed = host.engine.api.containers(all=True)
        found = [entry for entry in listed if _is_of(entry, root)]
        networks = {name for entry in found for name in _networks_of(entry)}
        for entry in found:
            with contextlib.suppress(EngineError), host.engine.calling("remove a job's container"):
                host.engine.api.remove_container(str(entry["Id"]), v=True, force=True)
        for name in networks:
            with contextlib.suppress(EngineError), host.engine.calling("remove a job's network"):
                host.engine.api.remove_network(name)
    except EngineError as error:
        log.info("can't look for containers that a job left: %s", error.message)
        return 0
    if found:
        log.warning("removed %d containers that a job left", len(found))
    return len(found)


def _is_of(entry: Mapping[str, Any], root: Path) -> bool:
    if BUILD_LABEL in (entry.get("Labels") or {}):
        return False
    sources = [str(mount.get("Source", "")) for mount in entry.get("Mounts") or ()]
    return any(Path(source).is_relative_to(root) for source in sources if source)


def _networks_of(entry: Mapping[str, Any]) -> list[str]:
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    return [name for name in networks if _NETWORK.fullmatch(str(name))]
