"""Everything a build needs before BitBake may start: layers, image, caches, conf files, plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from smidr_ci.bitbake.conf import ConfInputs, check_names, remove_strays, write_conf
from smidr_ci.bitbake.driver_files import install
from smidr_ci.bitbake.plan import CONTROL_FILES, Plan
from smidr_ci.builds.blame import naming_the_line
from smidr_ci.builds.bytecode import compiled_bitbake
from smidr_ci.builds.environment import build_environment
from smidr_ci.builds.hashserv import ADDRESS, can_serve
from smidr_ci.builds.host import Host
from smidr_ci.builds.mirrors import mirrors_of
from smidr_ci.builds.mounts import container_spec, mounts_of
from smidr_ci.builds.parallelism import (
    allowance_of,
    host_cpus,
    host_memory_bytes,
    least,
    parallelism_for,
)
from smidr_ci.builds.places import Places
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.sharing import relay_of, share_in_conf, without_proxy
from smidr_ci.builds.stranger import image_guard, settings_for
from smidr_ci.caches.layout import CacheDirs
from smidr_ci.caches.private import PRIVATE_CACHE, mirror_line, private_sstate, stock
from smidr_ci.cancel import CancelToken
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import ContainerSpec
from smidr_ci.containers.user import own
from smidr_ci.files import as_host_error, make_marked_dir, write_atomic
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
    hash_server: Path | None = None
    """Directory with the socket of the host's; not known again once the container is described."""
    share: Path | None = None
    """The same of what hosts share."""

    def sstate_of(self, workspace: Workspace) -> Path:
        """SSTATE_DIR on the host: what this build may set aside objects in."""
        private = workspace.extra.get(PRIVATE_CACHE)
        return self.places.sstate if private is None else private_sstate(private)

    def parse_caches(self, workspace: Workspace) -> Iterator[tuple[str, Path]]:
        """Key and host directory of each part of the parse cache.

        Builds with the same key may use each other's, but nobody an untrusted one's: it is code
        for who loads it. A TMPDIR outside of TOPDIR is a part of its own.
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
        layers = host.layer_store(places, request.trust).sync(
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
            config.container,
            rebuild=request.clean_image,
            report=report,
            cancel=cancel,
            guard=None if request.is_trusted else image_guard(host.agent),
        )
    caches = CacheDirs(downloads=places.downloads, sstate=places.sstate)
    caches.prepare(host.user)
    cancel.raise_if_cancelled()
    hash_server = _hash_server(host, request, layers, image, report)
    share = host.share_folder(request.trust) if _may_share(host, request, report) else None
    return Preparation(request, config, targets, places, layers, image, caches, hash_server, share)


def _reads_shared(host: Host, request: BuildRequest) -> bool:
    return request.is_trusted or host.agent.trust.untrusted_may_read_caches


def _may_share(host: Host, request: BuildRequest, report: Callable[[str], None]) -> bool:
    """Whether it reads what other hosts shared."""
    if host.agent.cache.share is None or not _reads_shared(host, request):
        return False
    if settings_for(host.agent, request.trust).engine.network == "host":
        # Any program there could take the port first, and answer with objects of its own making.
        report("nothing from other hosts: in the host's network others could answer for them")
        return False
    return True


def _hash_server(
    host: Host,
    request: BuildRequest,
    layers: LayerSet,
    image: BuilderImage,
    report: Callable[[str], None],
) -> Path | None:
    """The host's hash server; only an agent starts it, and only for a trusted build."""
    reads_shared = _reads_shared(host, request)
    is_elsewhere = host.hash_server_elsewhere is not None
    if (is_elsewhere or not host.agent.cache.hash_server) and host.is_agent:
        host.hash_servers.retire(timedelta())
    if not (host.agent.cache.hash_server and reads_shared and can_serve(layers)):
        return None
    cache = host.agent.cache
    if cache.share is not None and not cache.has_common_hash_server:
        # Equivalences that other hosts don't know would hide from them what is shared.
        report("no hash server for this build: hosts that share sstate have none in common")
        return None
    if request.is_trusted and host.is_agent:
        return host.hash_servers.ensure(layers, image.id, report)
    return host.hash_servers.find(layers, request.trust)


def furnish(
    host: Host, prepared: Preparation, workspace: Workspace, control: Path
) -> tuple[ContainerSpec, Plan]:
    """Fill a leased workspace and the control directory; say which container to start."""
    if PRIVATE_CACHE in workspace.extra:
        host.kept_caches.take(prepared.request.private_cache_key, workspace.extra[PRIVATE_CACHE])
    if workspace.is_warm:
        remove_strays(workspace.build)
    elif not prepared.request.clean:
        for key, folder in prepared.parse_caches(workspace):
            host.parse_cache.seed(key, folder)
    make_marked_dir(control.parent)
    return equip(host, prepared, workspace, control)


def equip(
    host: Host, prepared: Preparation, workspace: Workspace, control: Path
) -> tuple[ContainerSpec, Plan]:
    """Write conf files, driver and plan; what the workspace has already stays."""
    settings = settings_for(host.agent, prepared.request.trust)
    reads_shared = host.agent.trust.untrusted_may_read_caches
    _stock(host, prepared, workspace, reads_shared=reads_shared)
    _write_conf(host, prepared, workspace, settings)
    plan = _plan(host, prepared, workspace.build_id)
    control.mkdir(exist_ok=True)
    own(control, host.user)
    install(control)
    write_atomic(control / CONTROL_FILES["plan"], plan.to_json())
    spec = container_spec(
        workspace.build_id,
        prepared.config,
        settings,
        image=prepared.image.id,
        user=host.user,
        mounts=(
            *mounts_of(
                prepared.layers,
                workspace,
                prepared.caches,
                prepared.places,
                control,
                reads_shared=reads_shared,
                hash_server=prepared.hash_server,
                share=prepared.share,
            ),
            *compiled_bitbake(
                host,
                prepared.layers,
                prepared.image,
                workspace.build_id,
                prepared.request.trust,
            ),
        ),
        environment={},
    )
    return spec, plan


def _stock(host: Host, prepared: Preparation, workspace: Workspace, *, reads_shared: bool) -> None:
    """Make an untrusted build's own caches ready for it."""
    private = workspace.extra.get(PRIVATE_CACHE)
    if private is None:
        return
    try:
        private.mkdir(exist_ok=True)  # gone when the workspace was kept and this brought away
        stock(private, prepared.caches, host.user, may_read=reads_shared)
    except OSError as error:
        raise as_host_error(error, "can't make the build's private caches", private) from error


def _write_conf(
    host: Host, prepared: Preparation, workspace: Workspace, settings: AgentConfig
) -> None:
    parallelism = parallelism_for(
        prepared.config,
        allowance_of(prepared.config, settings),
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
        sstate_mirror=_sstate_mirror(host, workspace),
        operator_mirrors=mirrors_of(host.agent.cache, prepared.request.trust),
        share=share_in_conf(
            host.agent.cache.share,
            prepared.request.trust,
            may_read=prepared.share is not None,
        ),
        hash_server=ADDRESS if prepared.hash_server else None,
        # In a directory that others go on in, they would do all that was removed again.
        rm_work=host.agent.workspaces.rm_work and not workspace.warm_key,
    )
    if "tmp" in workspace.extra:
        (workspace.build / "tmp").mkdir(exist_ok=True)
        own(workspace.build / "tmp", host.user)
    write_conf(workspace.build, inputs)
    own(workspace.build / "conf", host.user)


def _sstate_mirror(host: Host, workspace: Workspace) -> str | None:
    reads_shared = PRIVATE_CACHE in workspace.extra and host.agent.trust.untrusted_may_read_caches
    return mirror_line() if reads_shared else None


def _plan(host: Host, prepared: Preparation, build_id: str) -> Plan:
    config, layers = prepared.config, prepared.layers
    trust = prepared.request.trust
    environment = build_environment(config, host.agent, host.environ, trust)
    if prepared.share is not None:
        environment = without_proxy(environment)
    phases = ("fetch", "build") if config.build.fetch_first else ("build",)
    most = None if prepared.request.is_trusted else host.agent.trust.untrusted_time_limit
    limit_minutes = least(config.advanced.build_timeout, most)
    return Plan(
        build_id=build_id,
        targets=prepared.targets,
        bitbake=str(layers.bitbake),
        init_script=str(layers.init_script) if layers.init_script else None,
        phases=("fetch",) if prepared.request.fetch_only else phases,
        environment=environment,
        passthrough=tuple(environment),
        time_limit_s=limit_minutes * 60.0 if limit_minutes else None,
        relay=relay_of(prepared.share),
    )
