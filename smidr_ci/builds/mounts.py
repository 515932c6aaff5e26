"""The container of a build: what is mounted where, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from smidr_ci.bitbake.driver_files import driver_command
from smidr_ci.builds.hashserv import HASH_SERVER_MOUNT
from smidr_ci.builds.parallelism import allowance_of
from smidr_ci.builds.places import Places
from smidr_ci.builds.sharing import SHARE_MOUNT
from smidr_ci.caches.layout import CacheDirs
from smidr_ci.caches.private import PRIVATE_CACHE, private_mounts
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.containers.runtime import ContainerSpec, Mount, User
from smidr_ci.layers.model import LayerSet
from smidr_ci.workspaces.model import Workspace

__all__ = ["BUILD", "CONTROL", "DEPLOY", "container_spec", "mounts_of"]

CONTROL: Final = PurePosixPath("/smidr/control")
BUILD: Final = PurePosixPath("/smidr/build")
_HOME: Final = PurePosixPath("/smidr/home")
DEPLOY: Final = PurePosixPath("/smidr/deploy")
_SOURCE: Final = PurePosixPath("/smidr/src")
_PIDS: Final = 32768
_SHM_BYTES: Final = 1024**3


def mounts_of(
    layers: LayerSet,
    workspace: Workspace,
    caches: CacheDirs,
    places: Places,
    control: Path,
    *,
    reads_shared: bool = True,
    hash_server: Path | None = None,
    share: Path | None = None,
) -> tuple[Mount, ...]:
    """Layers and source read-only, the build's own directories and the caches writable.

    A workspace with private caches has these in place of the shared ones, which it then can read
    at most.
    """
    own = [
        Mount(control, CONTROL, writable=True),
        Mount(workspace.build, BUILD, writable=True),
        Mount(workspace.home, _HOME, writable=True),
    ]
    if "tmp" in workspace.extra:
        own.append(Mount(workspace.extra["tmp"], BUILD / "tmp", writable=True))
    if "deploy" in workspace.extra:
        own.append(Mount(workspace.extra["deploy"], DEPLOY, writable=True))
    if places.source is not None:
        own.append(Mount(places.source, _SOURCE))
    if hash_server is not None:
        own.append(Mount(hash_server, HASH_SERVER_MOUNT))  # one connects to a read-only socket too
    if share is not None:
        own.append(Mount(share, SHARE_MOUNT))
    trees = [Mount(tree.tree, tree.mount_point) for tree in layers.trees]
    private = workspace.extra.get(PRIVATE_CACHE)
    if private is None:
        return (*own, *caches.mounts(), *trees)
    return (*own, *private_mounts(caches, private, may_read=reads_shared), *trees)


def container_spec(
    build_id: str,
    config: ProjectConfig,
    agent: AgentConfig,
    *,
    image: str,
    user: User,
    mounts: tuple[Mount, ...],
    environment: Mapping[str, str],
) -> ContainerSpec:
    """The container that runs the driver, within the config's limits or the operator's."""
    container, allowance = config.container, allowance_of(config, agent)
    return ContainerSpec(
        build_id=build_id,
        image=image,
        command=driver_command(),
        user=user,
        mounts=mounts,
        environment=environment,
        entrypoint=container.entrypoint or (),
        memory_bytes=allowance.memory_bytes,
        cpus=allowance.cpus,
        pids=container.pids or _PIDS,
        shm_bytes=container.shm_size or _SHM_BYTES,
        network=agent.engine.network,
        labels={"io.smidr.project": config.name},
    )
