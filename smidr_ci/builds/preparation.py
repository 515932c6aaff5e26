"""Everything a build needs before BitBake may start: layers, image, caches, conf files, plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.bitbake.conf import ConfInputs, check_names, write_conf
from smidr_ci.bitbake.driver_files import install
from smidr_ci.bitbake.plan import CONTROL_FILES, Plan
from smidr_ci.builds.blame import naming_the_line
from smidr_ci.builds.bytecode import compiled_bitbake
from smidr_ci.builds.environment import build_environment
from smidr_ci.builds.host import Host
from smidr_ci.builds.mounts import container_spec, mounts_of
from smidr_ci.builds.parallelism import (
    allowance_of,
    host_cpus,
    host_memory_bytes,
    parallelism_for,
)
from smidr_ci.builds.places import Places
from smidr_ci.builds.request import BuildRequest
from smidr_ci.caches.layout import CacheDirs
from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import ContainerSpec
from smidr_ci.containers.user import own
from smidr_ci.files import make_marked_dir, write_atomic
from smidr_ci.images.model import BuilderImage
from smidr_ci.layers.lockfile import LOCK_NAME, read_lock
from smidr_ci.layers.model import LayerSet
from smidr_ci.workspaces.model import Workspace
from smidr_ci.workspaces.parse_cache import cache_key

__all__ = ["Preparation", "equip", "furnish", "prepare"]


@dataclass(frozen=True)
class Preparation:
    """What was found and made for one build, whatever its workspace."""

    request: BuildRequest
    config: ProjectConfig
    """With the layers that `base.provider` supplies."""
    targets: tuple[str, ...]
    places: Places
    layers: LayerSet
    image: BuilderImage
    caches: CacheDirs

    def parse_caches(self, workspace: Workspace) -> Iterator[tuple[str, Path]]:
        """Key and host directory of each part of the parse cache.

        Builds with the same key may use each other's. A TMPDIR outside of TOPDIR is a part of
        its own.
        """
        yield self._parse_cache_key("build"), workspace.build
        if "tmp" in workspace.extra:
            yield self._parse_cache_key("tmp"), workspace.extra["tmp"]

    def _parse_cache_key(self, part: str) -> str:
        return cache_key(
            bitbake=f"{self.layers.bitbake} {self.layers.bitbake_version}",
            layers=[str(path) for path in self.layers.bblayers],
            machine=self.config.resolved_machine or "",
            distro=self.config.base.distro or "",
            multiconfig=" ".join(self.config.build.multiconfig),
            trust=f"trusted {self.request.customer} {part}",
        )


def prepare(
    host: Host,
    request: BuildRequest,
    targets: tuple[str, ...],
    places: Places,
    report: Callable[[str], None],
    cancel: CancelToken,
) -> Preparation:
    """Layers first: they fail soonest and cheapest. Raises `SmidrError`."""
    config = with_provider_layers(request.project.config)
    with naming_the_line(request.project):
        layers = host.layer_store(places).sync(
            config.layers,
            base_dir=request.project.directory,
            lock=read_lock(request.project.directory / LOCK_NAME),
            locked=request.locked,
            series=config.yocto_series,
            provider=config.base.provider,
            confine_to=request.project.directory if request.is_confined else None,
            report=report,
            cancel=cancel,
        )
        check_names(config, layers)
    cancel.raise_if_cancelled()
    with naming_the_line(request.project):
        image = host.images.ensure(
            config.container, rebuild=request.clean_image, report=report, cancel=cancel
        )
    caches = CacheDirs(downloads=places.downloads, sstate=places.sstate)
    caches.prepare(host.user)
    cancel.raise_if_cancelled()
    return Preparation(request, config, targets, places, layers, image, caches)


def furnish(
    host: Host, prepared: Preparation, workspace: Workspace, control: Path
) -> tuple[ContainerSpec, Plan]:
    """Fill a fresh workspace and the control directory; say which container to start."""
    if not prepared.request.clean:
        for key, folder in prepared.parse_caches(workspace):
            host.parse_cache.seed(key, folder)
    make_marked_dir(control.parent)
    return equip(host, prepared, workspace, control)


def equip(
    host: Host, prepared: Preparation, workspace: Workspace, control: Path
) -> tuple[ContainerSpec, Plan]:
    """Write conf files, driver and plan; what the workspace has already stays."""
    _write_conf(host, prepared, workspace)
    plan = _plan(host, prepared, workspace.build_id)
    control.mkdir(exist_ok=True)
    own(control, host.user)
    install(control)
    write_atomic(control / CONTROL_FILES["plan"], plan.to_json())
    spec = container_spec(
        workspace.build_id,
        prepared.config,
        host.agent,
        image=prepared.image.id,
        user=host.user,
        mounts=(
            *mounts_of(prepared.layers, workspace, prepared.caches, prepared.places, control),
            *compiled_bitbake(host, prepared.layers, prepared.image, workspace.build_id),
        ),
        environment={},
    )
    return spec, plan


def _write_conf(host: Host, prepared: Preparation, workspace: Workspace) -> None:
    parallelism = parallelism_for(
        prepared.config,
        allowance_of(prepared.config, host.agent),
        cpus=host_cpus(),
        memory_bytes=host_memory_bytes(),
        builds=host.side_by_side,
    )
    inputs = ConfInputs(
        config=prepared.config,
        layers=prepared.layers,
        threads=parallelism.threads,
        make_jobs=parallelism.make_jobs,
        deploy_dir="/smidr/deploy" if "deploy" in workspace.extra else None,
    )
    if "tmp" in workspace.extra:
        (workspace.build / "tmp").mkdir(exist_ok=True)
        own(workspace.build / "tmp", host.user)
    write_conf(workspace.build, inputs)
    own(workspace.build / "conf", host.user)


def _plan(host: Host, prepared: Preparation, build_id: str) -> Plan:
    config, layers = prepared.config, prepared.layers
    environment = build_environment(config, host.agent, host.environ)
    phases = ("fetch", "build") if config.build.fetch_first else ("build",)
    limit_minutes = config.advanced.build_timeout
    return Plan(
        build_id=build_id,
        targets=prepared.targets,
        bitbake=str(layers.bitbake),
        init_script=str(layers.init_script) if layers.init_script else None,
        phases=("fetch",) if prepared.request.fetch_only else phases,
        environment=environment,
        passthrough=tuple(environment),
        time_limit_s=limit_minutes * 60.0 if limit_minutes else None,
    )
