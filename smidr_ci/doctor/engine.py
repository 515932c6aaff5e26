"""Checks of the container engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from smidr_ci.containers.runtime import Handle
from smidr_ci.doctor.model import CheckResult, failed, fine, warned
from smidr_ci.engine import Engine, EngineFacts
from smidr_ci.errors import EngineError
from smidr_ci.images.install import INSTALL_CONTAINER_PREFIX
from smidr_ci.images.model import StoredImage

__all__ = ["check_containers", "check_engine", "check_images", "check_installs", "judge_engine"]

_SLOW_DRIVERS: Final = {"vfs", "devicemapper", "aufs"}
_GIB: Final = 1024**3


def check_engine(engine: Engine) -> list[CheckResult]:
    """Reachable, its version, and whether it can confine a build."""
    try:
        return list(judge_engine(engine.facts))
    except EngineError as error:
        return [failed("container engine", error.message, error.hint)]


def judge_engine(facts: EngineFacts) -> Iterator[CheckResult]:
    """What the engine's own description means for builds."""
    product = "Podman" if facts.is_podman else "Docker Engine"
    rootless = ", rootless" if facts.is_rootless else ""
    yield fine("container engine", f"{product} {facts.version} (API {facts.api_version}{rootless})")
    if facts.is_rootless and not facts.is_podman:
        yield failed(
            "rootless engine",
            "rootless Docker maps the builder to a uid that can't write to your directories",
            "Use the system's engine: export DOCKER_HOST=unix:///var/run/docker.sock",
        )
    yield _storage(facts)
    yield from _limits(facts)


def _storage(facts: EngineFacts) -> CheckResult:
    if facts.storage_driver in _SLOW_DRIVERS:
        return warned(
            "storage driver",
            f"{facts.storage_driver} copies whole images for every container",
            'Set {"storage-driver": "overlay2"} in /etc/docker/daemon.json, then '
            "systemctl restart docker (images are made anew)",
        )
    return fine("storage driver", facts.storage_driver)


def _limits(facts: EngineFacts) -> Iterator[CheckResult]:
    cgroups = f"cgroup version {facts.cgroup_version}"
    grub = "in GRUB_CMDLINE_LINUX of /etc/default/grub, then update-grub and reboot"
    if not facts.limits_memory:
        detail = f"{cgroups}: the engine can't limit memory, so one build may starve the host"
        yield warned("resource limits", detail, f"Add cgroup_enable=memory {grub}")
    elif not facts.limits_swap:
        detail = f"{cgroups}: swap is not counted, so a memory limit does not limit swap"
        yield warned("resource limits", detail, f"Add swapaccount=1 {grub}")
    elif not facts.limits_pids:
        detail = f"{cgroups}: the engine can't limit the number of processes"
        yield warned("resource limits", detail, "Use a kernel with the pids cgroup controller")
    else:
        yield fine("resource limits", f"{cgroups}: memory, swap and processes can be limited")


def check_containers(
    handles: Callable[[], Iterable[Handle]], is_alive: Callable[[str], bool]
) -> list[CheckResult]:
    """Containers of builds that no process looks after any more.

    `handles` is `ContainerRuntime.list_builds`; `is_alive` says whether a build goes on.
    """
    name = "left-over containers"
    try:
        left = [handle for handle in handles() if not is_alive(handle.build_id)]
    except EngineError:
        return []  # the engine's own check has said so
    if not left:
        return [fine(name, "none")]
    ids = " ".join(handle.container_id[:12] for handle in left)
    builds = ", ".join(sorted({handle.build_id for handle in left}))
    return [warned(name, f"{len(left)} of builds that ended: {builds}", f"docker rm -f {ids}")]


def check_installs(engine: Engine) -> list[CheckResult]:
    """Containers in which an image was being made when smidr was killed."""
    name = "left-over image builds"
    try:
        with engine.calling("list containers"):
            # Those that run may be somebody's build of an image.
            found: Sequence[Any] = engine.api.containers(
                all=True,
                filters={"name": f"^/?{INSTALL_CONTAINER_PREFIX}", "status": ["exited", "created"]},
            )
    except EngineError:
        return []
    if not found:
        return [fine(name, "none")]
    ids = " ".join(str(entry["Id"])[:12] for entry in found)
    return [warned(name, f"{len(found)} containers", f"docker rm -f {ids}")]


def check_images(
    stored: Callable[[], Iterable[StoredImage]], used: Callable[[], frozenset[str]]
) -> list[CheckResult]:
    """Builder images that no build of late has used; `used` are image ids."""
    name = "stale images"
    try:
        wanted = used()
        stale = [one for one in stored() if one.kind == "builder" and one.id not in wanted]
    except EngineError:
        return []
    if not stale:
        return [fine(name, "none")]
    size = sum(image.size_bytes for image in stale) / _GIB
    names = " ".join(image.tags[0] if image.tags else image.id for image in stale)
    detail = f"{len(stale)} builder images that no known build uses, up to {size:.1f} GiB"
    return [warned(name, detail, f"docker rmi {names}")]
