"""Every key of `smidr.yaml` and `agent.yaml` changes something that the program makes.

Each key stands below with the part of the program that uses it; a key without one fails. Most are
shown on whole builds, by what their container, files and record are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from botocore.config import Config
from cryptography.hazmat.primitives.asymmetric import ec

from smidr_ci import errors
from smidr_ci.agent.hash_relays import HashRelays, server_behind
from smidr_ci.agent.service import Agent
from smidr_ci.agent.settings import Settings
from smidr_ci.api.addresses import plan_listening
from smidr_ci.api.security import Security, Transport
from smidr_ci.api.tokens import TokenStore
from smidr_ci.builds.admission import HostAdmission, admission_of
from smidr_ci.builds.database import Database
from smidr_ci.builds.gc import GcOptions, run_gc, wanted_bytes
from smidr_ci.builds.likeness import likeness_of
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.order import Order
from smidr_ci.builds.places import places_for
from smidr_ci.builds.remains import Remains
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.slots import Waiting, policy_of
from smidr_ci.builds.store import BuildStore
from smidr_ci.builds.stranger import image_guard, logins_for
from smidr_ci.builds.upkeep import trim_history
from smidr_ci.builds.uploads import upload
from smidr_ci.builds.uses import note_uses
from smidr_ci.builds.views import record_as_dict
from smidr_ci.caches.layout import FreeSpace
from smidr_ci.caches.lru import Caps
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import SystemClock
from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import load_project_text
from smidr_ci.config.models import Container, ProjectConfig
from smidr_ci.config.provider import with_provider_layers
from smidr_ci.containers.runtime import User
from smidr_ci.containers.user import builder_user
from smidr_ci.engine import Engine
from smidr_ci.errors import BusyError, ConfigError, FailureKind, HostError, ImageError, LayerError
from smidr_ci.files import make_marked_dir
from smidr_ci.forges.external import why_no_store
from smidr_ci.forges.github.artifact_uploads import is_uploaded
from smidr_ci.forges.github.facts import JobFacts
from smidr_ci.forges.github.runners.container import Containers, runner_spec
from smidr_ci.forges.github.runners.door import agent_socket
from smidr_ci.forges.github.runners.folder import RunnerFolder
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.surroundings import job_user, runners_directory, total_slots
from smidr_ci.forges.github.trust import Verdict, decide
from smidr_ci.forges.gitlab.checkouts import remove_old_checkouts
from smidr_ci.forges.gitlab.elsewhere import is_offered
from smidr_ci.forges.gitlab.payload import GitInfo, Job, JobInfo
from smidr_ci.forges.gitlab.trust import trust_of
from smidr_ci.images.store import ImageStore
from smidr_ci.layers.discover import discover, select
from smidr_ci.layers.entries import local_path
from smidr_ci.layers.resolve import ask
from smidr_ci.layers.urls import parse_url
from smidr_ci.stores.opening import open_store
from smidr_ci.stores.s3 import S3Store
from smidr_ci.stores.s3_client import make_client
from smidr_ci.trust import Trust
from tests.fakes.agent_bench import PROJECT
from tests.fakes.bench import Bench, Seen
from tests.fakes.cache_home import CacheHome
from tests.fakes.certificates import Authority, write_key
from tests.fakes.clock import FakeClock
from tests.fakes.config_keys import (
    AGENT_BASELINE,
    AGENT_EXAMPLES,
    Key,
    assert_effect,
    iter_keys,
    unproven,
)
from tests.fakes.docker_api import Answer, FakeDockerApi, Request, collect_lost_sockets
from tests.fakes.github.policies import is_smidr_step, looks_at_workflows

# The SDK leaves the socket of a stream that was not read to its end to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

PROJECT_KEYS: Final = tuple(iter_keys())
AGENT_KEYS: Final = tuple(iter_keys(AgentConfig, AGENT_EXAMPLES, AGENT_BASELINE))


_ABSENT: Final = Answer(404, {"message": "no such image"})


class World:
    """What the keys may change: builds on a bench, and a scripted engine."""

    def __init__(self, root: Path, api: FakeDockerApi, engine: Engine) -> None:
        self.bench = Bench(root)
        self.agent = self.bench.host().agent
        self.api, self.engine = api, engine
        self.is_image_present = True
        api.on("GET", "/images/.*/json", self._inspect)

    def _inspect(self, request: Request) -> Answer:
        name = unquote(request.path).removeprefix("/images/").removesuffix("/json")
        image_id = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        return Answer(json={"Id": image_id}) if self.is_image_present else _ABSENT

    def build(self, config: ProjectConfig, agent: AgentConfig | None = None) -> Seen:
        return self.bench.build(config, agent)

    def file(self, name: str) -> Callable[[ProjectConfig], str]:
        return lambda config: self.build(config).files[name]

    def plan(self, name: str) -> Callable[[ProjectConfig], object]:
        return lambda config: json.loads(self.build(config).files["plan.json"])[name]

    def spec(self, name: str) -> Callable[[ProjectConfig], object]:
        return lambda config: getattr(self.build(config).spec, name)

    def record(self, name: str) -> Callable[[ProjectConfig], object]:
        return lambda config: record_as_dict(self.build(config).record)[name]

    def mounted(self, target: str) -> Callable[[ProjectConfig], object]:
        """The host directory at a container path, without the build's own part of it."""

        def make(config: ProjectConfig) -> object:
            spec = self.build(config).spec
            assert spec is not None
            found = [mount.source for mount in spec.mounts if str(mount.target) == target]
            return [path.is_relative_to(self.bench.project) for path in found]

        return make

    def image(self, container: Container, agent: AgentConfig) -> object:
        """The builder image, or why there is none, and what the engine was asked for it."""
        self.api.requests.clear()
        settings = replace(
            replace(self.bench.host(agent), environ={}).image_settings, mmdebstrap="mmdebstrap-fake"
        )
        store = ImageStore(self.engine, settings, locks=self.bench.root / "locks")
        try:
            found: object = store.ensure(container)
        except ImageError as error:
            found = str(error)
        return found, [(one.method, one.path, one.query) for one in self.api.requests]

    def failing(self, make: Callable[[], object]) -> object:
        """What `make` comes to when BitBake fails."""
        self.bench.exit_code = 1
        try:
            return make()
        finally:
            self.bench.exit_code = 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("keys")
    api = FakeDockerApi(root / "engine.sock")
    api.start()
    with closing(Engine(api.url)) as engine:
        yield World(root / "bench", api, engine)
    api.stop()
    collect_lost_sockets()


def asked_of_git(config: ProjectConfig) -> object:
    return [ask(entry, config.yocto_series) for entry in config.layers if entry.git]


def local_layers(world: World, config: ProjectConfig) -> object:
    folder = world.bench.project / "meta-local"
    folder.mkdir(exist_ok=True)
    return [local_path(entry, folder.parent, None) for entry in config.layers if entry.path]


def chosen_layers(world: World, config: ProjectConfig) -> object:
    tree = world.bench.root / "tree"
    for name in ("meta", "meta-more"):
        conf = tree / name / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        (conf / "layer.conf").write_text(f'BBFILE_COLLECTIONS += "{name}"\n')
    return [select(discover(tree), tree, one.name, one.layers) for one in config.layers]


def release_checked(world: World, config: ProjectConfig) -> object:
    record = world.build(config).record
    return record.state, record.failure_kind


def chosen_bitbake(world: World, config: ProjectConfig) -> object:
    return json.loads(world.build(config).files["plan.json"])["bitbake"]


def end_with_a_warning(world: World, config: ProjectConfig) -> object:
    world.bench.warnings = ("WARNING: hello-1.0-r0 do_package: QA Issue: x [already-stripped]",)
    try:
        record = world.build(config).record
    finally:
        world.bench.warnings = ()
    return record.state, record.failure_kind


def image_of(world: World, config: ProjectConfig) -> object:
    return world.image(config.container, world.agent)


def artifact_names(record: BuildRecord) -> list[str]:
    return sorted(Path(item.path).name for item in record.artifacts)


def kept_after_a_month(world: World, config: ProjectConfig) -> object:
    """Whether a build's artifacts and workspace outlive a month and another build."""
    record = world.failing(lambda: world.build(config).record)
    assert isinstance(record, BuildRecord)
    good = world.build(config).record
    artifacts = world.bench.host().artifacts_of(good)
    assert artifacts.is_dir()
    world.bench.clock.advance(30 * 86_400)
    world.build(config)
    return artifacts.is_dir(), Path(record.workspace).is_dir()


def goes_on(world: World, config: ProjectConfig) -> object:
    """Whether a second build goes on where the first ended, on a host that lets it."""
    agent = AgentConfig.model_validate({"workspaces": {"mode": "warm"}})
    return is_second_warm(world, config, agent, "")


Consumer = Callable[["World", Any], object]

_LOCAL_CONF: Final = (
    *("base.machine", "base.distro", "build.machine", "build.multiconfig", "build.extra_packages"),
    *("build.parallel_make", "build.bb_number_threads", "build.package_classes"),
    *("build.extra_image_features", "build.inherit_classes", "packages.classes"),
    *("features.extra_image_features", "features.user_classes", "features.inherit_classes"),
    *("advanced.bb_hashserve", "advanced.bb_signature_handler", "advanced.license_flags"),
    *("advanced.conf_version", "advanced.disk_monitoring", "advanced.qemu_sdl"),
    *("advanced.qemu_gtk", "advanced.accept_fsl_eula", "advanced.sstate_mirrors"),
    *("advanced.premirrors", "advanced.bb_no_network", "advanced.bb_fetch_premirroronly"),
    "local_conf",
)

PROJECT_CONSUMERS: Final[Mapping[str, Consumer]] = {
    **dict.fromkeys(_LOCAL_CONF, lambda world, config: world.file("local.conf")(config)),
    "name": lambda world, config: world.record("project")(config),
    "description": lambda world, config: world.record("description")(config),
    "yocto_series": release_checked,
    "base.provider": chosen_bitbake,
    "base.version": lambda _, config: with_provider_layers(config).layers,
    "layers[].name": lambda _, config: asked_of_git(config),
    "layers[].git": lambda _, config: asked_of_git(config),
    "layers[].branch": lambda _, config: asked_of_git(config),
    "layers[].tag": lambda _, config: asked_of_git(config),
    "layers[].commit": lambda _, config: asked_of_git(config),
    "layers[].mirrors": lambda _, config: asked_of_git(config),
    "layers[].path": local_layers,
    "layers[].layers": chosen_layers,
    "build.image": lambda world, config: world.plan("targets")(config),
    "build.targets": lambda world, config: world.plan("targets")(config),
    "build.fetch_first": lambda world, config: world.plan("phases")(config),
    "build.workspace": goes_on,
    "build.fail_on_warnings": end_with_a_warning,
    "build.sstate": lambda world, config: world.mounted("/smidr/sstate")(config),
    "build.tmp": lambda world, config: world.mounted("/smidr/build/tmp")(config),
    "build.deploy": lambda world, config: world.mounted("/smidr/deploy")(config),
    "directories.layers": lambda world, config: world.mounted("/smidr/layers/core")(config),
    "directories.downloads": lambda world, config: world.mounted("/smidr/downloads")(config),
    "directories.sstate": lambda world, config: world.mounted("/smidr/sstate")(config),
    "directories.source": lambda world, config: world.mounted("/smidr/src")(config),
    "directories.build": lambda world, config: world.mounted("/smidr/build")(config),
    "directories.tmp": lambda world, config: world.mounted("/smidr/build/tmp")(config),
    "directories.deploy": lambda world, config: world.mounted("/smidr/deploy")(config),
    "advanced.build_timeout": lambda world, config: world.plan("time_limit_s")(config),
    "artifacts": lambda world, config: artifact_names(world.build(config).record),
    "container.base_image": image_of,
    "container.packages": image_of,
    "container.bootstrap": image_of,
    "container.memory": lambda world, config: world.spec("memory_bytes")(config),
    "container.cpu_count": lambda world, config: world.spec("cpus")(config),
    "container.pids": lambda world, config: world.spec("pids")(config),
    "container.shm_size": lambda world, config: world.spec("shm_bytes")(config),
    "container.entrypoint": lambda world, config: world.spec("entrypoint")(config),
    "cache.retention": kept_after_a_month,
    "environment": lambda world, config: world.plan("environment")(config),
}
"""Key -> what the program makes of a config, by the part that uses the key."""

REFUSED_INSTEAD: Final = {"config_version"}
"""Keys with one valid value only, which is the default: their effect is what they refuse."""


def substituted(world: World, agent: AgentConfig) -> object:
    text = "name: project\ndescription: ${CI_TAG}\n"
    loaded = load_project_text(
        text, "smidr.yaml", directory=world.bench.project, environ=world.bench.environ,
        operator=agent,
    )  # fmt: skip
    return loaded.config.description


def outside_directories(world: World, agent: AgentConfig) -> object:
    text = "name: project\ndirectories: {sstate: /srv/elsewhere}\n"
    project = world.bench.project
    try:
        load_project_text(text, "smidr.yaml", directory=project, environ={}, operator=agent)
    except ConfigError as error:
        return error.message
    return "accepted"


def logins(world: World, agent: AgentConfig) -> object:
    """What git is given for two hosts; the files are made with their names as secrets."""
    folder = world.bench.root / "secrets"
    folder.mkdir(exist_ok=True)
    for name in ("token", "other-token"):
        (folder / name).write_text(name)
    (folder / "netrc").write_text("machine git.example.com login netrc password netrc\n")
    credentials = agent.git.credentials[0]
    moved = {
        key: folder / path.name
        for key in ("token_file", "netrc_file", "ssh_key_file", "known_hosts_file")
        if (path := getattr(credentials, key)) is not None
    }
    entry = credentials.model_copy(update=moved)
    local = agent.model_copy(update={"git": agent.git.model_copy(update={"credentials": (entry,)})})
    host = replace(world.bench.host(local))
    places = places_for(world.bench.loaded(ProjectConfig(name="project")), local, host.home)
    found = host.layer_store(places).credentials
    assert found is not None
    urls = [f"{scheme}://git.example.com/x" for scheme in ("https", "ssh")]
    return [found.access(parse_url(url)) for url in urls]


def git_store(world: World, agent: AgentConfig) -> tuple[float, int]:
    host = world.bench.host(agent)
    places = places_for(world.bench.loaded(ProjectConfig(name="project")), agent, host.home)
    store = host.layer_store(places)
    return store.timeout_s, store.attempts


def places(world: World, agent: AgentConfig) -> object:
    host = world.bench.host(agent)
    return places_for(world.bench.loaded(ProjectConfig(name="project")), agent, host.home)


def build_with(world: World, agent: AgentConfig) -> Seen:
    """A build whose host has room enough, unless the settings say something of it."""
    if "min_free_disk" not in agent.limits.model_fields_set:
        roomy = agent.limits.model_copy(update={"min_free_disk": 1, "min_free_disk_percent": 0})
        agent = agent.model_copy(update={"limits": roomy})
    config = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})
    return world.build(config, agent)


def environment_seen(world: World, agent: AgentConfig) -> object:
    return json.loads(build_with(world, agent).files["plan.json"])["environment"]


def container_seen(name: str) -> Consumer:
    return lambda world, agent: getattr(build_with(world, agent).spec, name)


def threads_and_container(name: str) -> Consumer:
    def make(world: World, agent: AgentConfig) -> object:
        seen = build_with(world, agent)
        return getattr(seen.spec, name), seen.files["local.conf"]

    return make


def artifacts_place(world: World, agent: AgentConfig) -> object:
    host = world.bench.host(agent)
    record = build_with(world, world.agent).record
    return host.artifacts_of(record)


def is_admitted(world: World, agent: AgentConfig) -> object:
    return build_with(world, agent).record.failure_kind


def started(world: World, agent: AgentConfig) -> object:
    """Which of four queued builds start on a host with two CPUs and 4 GiB, two of them at most."""
    limits = {"max_concurrent_builds": 2, **agent.limits.model_dump(exclude_unset=True)}
    agent = AgentConfig.model_validate({"limits": limits})
    policy = policy_of(agent, {}, cpus=2, memory_bytes=4 * 1024**3)
    scheduler = Scheduler(policy, admission(world, agent, pressure=0.0, free_percent=100))
    for place, (customer, memory) in enumerate(
        [("acme", None), ("acme", 1024**3), ("bravo", 1024**3), ("delta", None)]
    ):
        scheduler.add(Waiting(f"{customer}-{place:08x}", customer, place, memory))
    while scheduler.take():
        pass
    return scheduler.running


def admission(
    world: World, agent: AgentConfig, *, pressure: float, free_percent: int
) -> HostAdmission:
    """The check of a host whose file systems have so much free, and whose memory is so short."""
    space = FreeSpace(free_percent * 10**12, 10**14, 1, 1)
    real = admission_of(agent, world.bench.host().home)
    return replace(real, free=lambda _: space, pressure=lambda: pressure)


def refused(world: World, agent: AgentConfig) -> object:
    """Why no build starts on a host with half of its disk free, and some pressure on memory."""
    build = Waiting("acme-00000000", "acme", 1)
    return admission(world, agent, pressure=30.0, free_percent=50).check(build)


def taken(world: World, agent: AgentConfig) -> object:
    """How many of three orders an agent takes that starts none."""
    host = world.bench.host(agent)
    vars(host).update(engine=world.engine)
    waiting = Agent(Settings(host))
    order = Order("acme", PROJECT, "smidr.yaml", world.bench.project, is_confined=False)
    count = 0
    with contextlib.suppress(BusyError):
        while count < 3:
            waiting.submit(order)
            count += 1
    host.store.close()
    return count


def is_failure_kept(world: World, agent: AgentConfig) -> object:
    record = world.failing(lambda: build_with(world, agent).record)
    assert isinstance(record, BuildRecord)
    assert record.failure_kind == FailureKind.BUILD
    return bool(record.workspace) and Path(record.workspace).is_dir()


def history_left(world: World, agent: AgentConfig) -> object:
    """What upkeep does to eight builds of one project, a day apart, and to one hidden before."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory(dir=world.bench.root) as folder:
        remains = Remains(Path(folder) / "builds", Path(folder) / "artifacts")
        store = BuildStore(Path(folder) / "smidr.db", clock=clock)
        for number in range(9):
            build_id = f"acme-{number:08x}"
            now = clock.now()
            state = BuildState.COMPLETED
            store.add(BuildRecord(build_id, "acme", "project", (), state, now, ended=now))
            log = make_marked_dir(Path(folder) / "builds" / build_id) / "console.log"
            log.write_bytes(bytes(4096))
            if number == 5:
                store.soft_delete("acme-00000000")
            clock.advance(timedelta(days=1).total_seconds())
        done = trim_history(store, agent.history, clock.now(), remains)
        store.close()
    return [(item.build_id, item.action) for item in done]


def default_image(world: World, agent: AgentConfig) -> object:
    return world.image(Container(), agent)


def bootstrapped_image(world: World, agent: AgentConfig) -> object:
    return world.image(Container(bootstrap="always"), agent)


def pulled_image(world: World, agent: AgentConfig) -> object:
    world.is_image_present = False
    try:
        return world.image(Container(base_image="registry.example.com/a:1"), agent)
    finally:
        world.is_image_present = True


def listening(world: World, agent: AgentConfig) -> object:
    """Where an agent with these settings listens and with which files, or what is wrong."""
    authority = Authority(world.bench.root / "tls")
    _, _, key = authority.issue("server")
    authority.issue("renewed", key=key)
    Authority(world.bench.root / "tls", "other-ca")
    write_key(authority.folder / "renewed.key", ec.generate_private_key(ec.SECP256R1()))
    files = ("tls_certificate_file", "tls_key_file", "client_ca_file")
    moved = {name: authority.folder / getattr(agent.api, name).name for name in files}
    settings = agent.api.model_copy(update={"address": agent.api.address or "127.0.0.1:1", **moved})
    try:
        plan = plan_listening(settings, datetime.now(UTC), has_tokens=True)
    except ConfigError as error:
        return error.message
    assert plan.tls is not None
    assert plan.tls.chain == moved["tls_certificate_file"].read_bytes()
    assert plan.tls.client_ca == moved["client_ca_file"].read_bytes()
    paths = [moved[name].name for name in files]
    return plan.grpc, plan.http, paths


def rights_of_ops(world: World, agent: AgentConfig) -> object:
    """What the client with the certificate `ops` may do, and how many of 10 requests pass."""
    store = world.bench.root / "tokens.db"
    with closing(Database(store)) as database:
        security = Security(TokenStore(database), agent.api, 1000, clock=world.bench.clock)
        transport = Transport.tcp("203.0.113.5")
        scopes = []
        with suppress(BusyError):
            for _ in range(10):
                caller = security.authenticate(None, transport=transport, certificate=["ops"])
                scopes.append(caller.scope)
        return scopes


def collected(world: World, agent: AgentConfig) -> object:
    """What garbage collection takes of a home that has some of everything, 20 to 40 days old."""
    if "gc_below_free" not in agent.cache.model_fields_set:
        roomy = agent.cache.model_copy(update={"gc_below_free": 0})
        agent = agent.model_copy(update={"cache": roomy})
    home = old_home(world)
    gone: list[tuple[str, str]] = []
    options = GcOptions(dry_run=True)
    host = home.host_with(agent)
    run_gc(host, options, CancelToken(), tell=lambda item: gone.append((item.cache, item.path)))
    host.store.close()
    return sorted(gone)


def old_home(world: World) -> CacheHome:
    home = CacheHome(world.bench.root / "old-home")
    if not home.sstate.exists():
        home.sstate_object(1, 30)
        home.download("a.tar.gz", 30)
        home.layer_tree("meta", "0" * 40, 30)
        home.kept_workspace("default-00000001", 30)
        home.parse_cache("1" * 32, 20)
        home.job_cache("deps", 20)
        home.record(1, 30, image="sha256:1")
    home.image("sha256:1", 40)
    return home


def kept_for_builds(world: World, agent: AgentConfig) -> object:
    """Whether an object stays that an earlier build used, when everything old shall go."""
    home = CacheHome(world.bench.root / "used-home")
    if not home.sstate.exists():
        used = home.sstate_object(1, 30).name.rpartition(":")[2].partition("_")[0]
        stamp = home.root / "tmp" / "stamps" / "all" / "busybox" / f"1.0-r0.do_package.{used}"
        home.file(stamp, 30, 0)
        record = home.record(1, 30)
        (home.host.home.builds / record.build_id).mkdir(parents=True)
        note_uses(home.host, record.build_id, home.root / "tmp")
    options = GcOptions(frozenset({"sstate"}), {"sstate": Caps(max_age_s=0)}, dry_run=True)
    host = home.host_with(agent)
    found = run_gc(host, options, CancelToken())[0].units
    host.store.close()
    return found


def freed(_: World, agent: AgentConfig) -> int:
    """How much must go from a disk that has a tenth left."""
    return wanted_bytes(FreeSpace(10 << 30, 100 << 30, 1, 1), agent.cache)


def likeness(world: World, agent: AgentConfig) -> str:
    config = ProjectConfig.model_validate({"name": "project"})
    request = BuildRequest(project=world.bench.loaded(config))
    return likeness_of(world.bench.host(agent), request, ("image",))


def warm_refs(world: World, agent: AgentConfig) -> object:
    """Of which refs a second build goes on where the first ended."""
    config = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})
    return [
        ref
        for ref in ("", "refs/heads/main", "refs/heads/other", "refs/tags/v1")
        if is_second_warm(world, config, agent, ref)
    ]


def is_second_warm(world: World, config: ProjectConfig, agent: AgentConfig, ref: str) -> bool:
    limits = agent.limits.model_copy(update={"min_free_disk": 1, "min_free_disk_percent": 0})
    agent = agent.model_copy(update={"limits": limits})
    first, second = (world.bench.build(config, agent, ref=ref).record for _ in range(2))
    return second.warm_from == first.build_id


def strangers_build(world: World, agent: AgentConfig) -> Seen:
    """An untrusted build of a pull request, with a roomy disk."""
    limits = agent.limits.model_copy(update={"min_free_disk": 1, "min_free_disk_percent": 0})
    agent = agent.model_copy(update={"limits": limits})
    config = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})
    return world.bench.build(config, agent, Trust.UNTRUSTED, "forge:group/project!1")


def strangers_container(name: str) -> Callable[[World, AgentConfig], object]:
    def make(world: World, agent: AgentConfig) -> object:
        found = getattr(strangers_build(world, agent).spec, name)
        return {str(mount.target) for mount in found} if name == "mounts" else found

    return make


def strangers_time_limit(world: World, agent: AgentConfig) -> object:
    return json.loads(strangers_build(world, agent).files["plan.json"])["time_limit_s"]


def kept_for_a_pull_request(world: World, agent: AgentConfig) -> bool:
    kept = world.bench.host(agent).kept_caches
    shutil.rmtree(world.bench.host().home.private_caches, ignore_errors=True)
    strangers_build(world, agent)
    return bool(kept.sizes())


def job_trust(agent: AgentConfig, *, is_protected: bool) -> Trust:
    info, git = JobInfo(project_id=7, project_path="acme/distro"), GitInfo(ref="main")
    job = Job(1, "token", info=info, git_info=replace(git, is_protected=is_protected))
    return trust_of(job, agent.gitlab)


def github_verdict(agent: AgentConfig, event: str = "push", **changes: Any) -> Verdict:
    facts = JobFacts("github.com", "acme/distro", 7, event, 1, is_ref_protected=True)
    return decide(replace(facts, **changes), agent.github, built_sha="a")


def own_push(_world: World, agent: AgentConfig) -> Verdict:
    return github_verdict(agent, is_fork=False, commits=frozenset("a"))


def github_largest(_world: World, agent: AgentConfig) -> tuple[bool, ...]:
    sizes = (1, 100, 10 << 30)
    return tuple(is_uploaded(size, agent.github.largest_artifact) for size in sizes)


def official_runner(world: World, agent: AgentConfig) -> str:
    """What is wrong with the archive that the settings name."""
    folder = world.bench.root / "official-runners"
    installs = Installs(lambda: agent.github.runners, folder, tuple, SystemClock())
    installs.refresh()
    return installs.problem


def runner_user(world: World, agent: AgentConfig) -> object:
    try:
        return job_user(agent.github.runners, world.bench.host(agent))
    except ConfigError as error:
        return error.message


def runner_image(world: World, agent: AgentConfig) -> str:
    with pytest.raises(HostError) as caught:
        Containers(lambda: world.bench.host(agent)).check()
    return caught.value.message


def runner_container(name: str) -> Callable[[World, AgentConfig], object]:
    def make(world: World, agent: AgentConfig) -> object:
        world.bench.environ["CI_TAG"] = "nightly"
        folder = RunnerFolder(world.bench.root / "runners" / "lab" / "smidr-a")
        spec = runner_spec(world.bench.host(agent), folder, "image", User(1000, 1000))
        return getattr(spec, name)

    return make


def checkouts_left(world: World, agent: AgentConfig) -> int:
    root = world.bench.host().home.root / "checkouts"
    make_marked_dir(root / "lab-7-trusted-0")
    now = datetime.now(UTC) + timedelta(days=5)
    remove_old_checkouts(world.bench.host().home, agent.gitlab.keep_checkouts_days, now)
    return len(list(root.iterdir()))


def conf_beside_a_hash_server(world: World, agent: AgentConfig) -> str:
    """`local.conf` of a build while an agent's hash server answers."""
    limits = agent.limits.model_copy(update={"min_free_disk": 1, "min_free_disk_percent": 0})
    agent = agent.model_copy(update={"limits": limits})
    place = world.bench.host(agent).home.hash_servers / "2.8" / "trusted" / "socket"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    config = ProjectConfig.model_validate({"name": "project", "build": {"image": "image"}})
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/{place.name}")
            server.listen()
            return world.bench.build(config, agent).files["local.conf"]
    finally:
        os.close(folder)


def doors_opened(world: World, agent: AgentConfig) -> object:
    """What the agent says of doors at an address that this host has not."""
    host = world.bench.host(agent)
    relays = HashRelays(lambda: host)
    relays.look()
    found = relays.problems
    relays.stop()
    return found


def server_of_door(world: World, agent: AgentConfig) -> object:
    host = world.bench.host(agent)
    for number, release in enumerate(("2.8", "2.12")):
        note = host.home.hash_servers / release / "server.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
        os.utime(note, (number, number))
    return server_behind(host, agent.cache.hash_server_doors[0])


def asked_of_share(_: World, agent: AgentConfig) -> str:
    """What comes of asking the shared cache, which nobody serves."""
    share = agent.cache.share
    assert share is not None
    with closing(open_store(share.written, pause=lambda _: None)) as store:
        try:
            return str(store.head("sstate/x"))
        except errors.SmidrError as error:
            return str(error)


def share_in_the_cloud(_: World, agent: AgentConfig) -> object:
    share = agent.cache.share
    assert share is not None
    client = make_client(share.written)
    with closing(client):
        return client.meta.endpoint_url, client.meta.region_name


def pushed(world: World, agent: AgentConfig) -> str:
    try:
        return str(upload(world.bench.host(agent), CancelToken()))
    except errors.SmidrError as error:
        return error.message


def read_by_builds(_: World, agent: AgentConfig) -> str:
    share = agent.cache.share
    assert share is not None
    with closing(open_store(share.read)) as store:
        return store.where


def asked_of_external(_: World, agent: AgentConfig) -> str:
    """What comes of asking the store for big artifacts, which nobody serves."""
    settings = agent.artifacts.external_store
    if settings is None:
        return ""
    with closing(open_store(settings, pause=lambda _: None)) as store:
        try:
            return f"{store.head('x')} in {store.where}"
        except errors.SmidrError as error:
            return str(error)


def link_to_external(_: World, agent: AgentConfig) -> str:
    settings = agent.artifacts.external_store
    assert settings is not None
    with closing(open_store(settings)) as store:
        return store.url("key")


def signed_links(_: World, agent: AgentConfig) -> str:
    settings = agent.artifacts.external_store
    assert settings is not None
    signer = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(signature_version="s3v4"),
    )
    with closing(signer), closing(S3Store(settings, signer)) as store:
        return parse_qs(urlsplit(store.url("key")).query)["X-Amz-Expires"][0]


def external_in_the_cloud(_: World, agent: AgentConfig) -> object:
    settings = agent.artifacts.external_store
    assert settings is not None
    client = make_client(settings.model_copy(update={"credentials_file": None}))
    with closing(client):
        return client.meta.endpoint_url, client.meta.region_name


def strangers_place(_: World, agent: AgentConfig) -> str:
    return why_no_store(agent.artifacts.external_store, Trust.UNTRUSTED)


def gitlab_largest(_: World, agent: AgentConfig) -> tuple[bool, ...]:
    return tuple(is_offered(size, agent.gitlab.largest_artifact) for size in (1, 100))


AGENT_CONSUMERS: Final[Mapping[str, Consumer]] = {
    "substitution": substituted,
    "environment": environment_seen,
    "allow_config_directories": outside_directories,
    "git.credentials[].host": logins,
    "git.credentials[].username": logins,
    "git.credentials[].token_file": logins,
    "git.credentials[].netrc_file": logins,
    "git.credentials[].ssh_key_file": logins,
    "git.credentials[].known_hosts_file": logins,
    "git.timeout_s": git_store,
    "git.attempts": git_store,
    "engine.url": lambda world, agent: world.bench.host(agent).engine.url,
    "engine.network": container_seen("network"),
    "engine.builder_user": lambda _, agent: builder_user(
        {}, agent.engine.builder_user, process_ids=(0, 0)
    ),
    "engine.registry_auth_file": pulled_image,
    "images.default_base": default_image,
    "images.bootstrap_suite": bootstrapped_image,
    "images.bootstrap_mirror": bootstrapped_image,
    "images.extra_apt_sources": bootstrapped_image,
    "limits.cpus_per_build": threads_and_container("cpus"),
    "limits.memory_per_build": threads_and_container("memory_bytes"),
    "limits.max_concurrent_builds": started,
    "limits.max_queued_builds": taken,
    "limits.builds_per_customer": started,
    "limits.customers": started,
    "limits.memory_budget": started,
    "limits.max_memory_pressure": refused,
    "limits.min_free_disk": is_admitted,
    "limits.min_free_disk_percent": refused,
    "limits.kept_workspaces_size": is_failure_kept,
    "limits.kept_workspaces_count": is_failure_kept,
    "history.max_builds": history_left,
    "history.max_days": history_left,
    "history.max_size": history_left,
    "history.keep_newest": history_left,
    "history.purge_after_days": history_left,
    "cache.sstate_max_size": collected,
    "cache.sstate_max_age": collected,
    "cache.downloads_max_size": collected,
    "cache.downloads_max_age": collected,
    "cache.layers_max_size": collected,
    "cache.layers_max_age": collected,
    "cache.workspaces_max_age": collected,
    "cache.images_max_size": collected,
    "cache.images_max_age": collected,
    "cache.parse_cache_max_size": collected,
    "cache.parse_cache_max_age": collected,
    "cache.job_caches_max_size": collected,
    "cache.job_caches_max_age": collected,
    "cache.gc_below_free": freed,
    "cache.gc_until_free": freed,
    "cache.keep_builds": kept_for_builds,
    "cache.hash_server": conf_beside_a_hash_server,
    "cache.hash_server_upstream": lambda world, agent: (
        world.bench.host(agent).hash_servers.upstream
    ),
    "cache.sstate_mirrors": conf_beside_a_hash_server,
    "cache.premirrors": conf_beside_a_hash_server,
    "cache.hash_server_address": lambda world, agent: (
        world.bench.host(agent).hash_servers.elsewhere
    ),
    "cache.hash_server_read_only_address": lambda world, agent: (
        world.bench.host(agent).hash_servers.elsewhere
    ),
    "cache.hash_server_doors[].address": doors_opened,
    "cache.hash_server_doors[].writable": server_of_door,
    "cache.hash_server_doors[].release": server_of_door,
    "cache.share.url": conf_beside_a_hash_server,
    "cache.share.credentials_file": asked_of_share,
    "cache.share.ca_file": asked_of_share,
    "cache.share.endpoint": share_in_the_cloud,
    "cache.share.region": share_in_the_cloud,
    "cache.share.upload": pushed,
    "cache.share.downloads": conf_beside_a_hash_server,
    "cache.share.repositories": conf_beside_a_hash_server,
    "cache.share.read_url": read_by_builds,
    "cache.yocto_mirror": conf_beside_a_hash_server,
    "builds.share": likeness,
    "workspaces.mode": warm_refs,
    "workspaces.warm_refs": warm_refs,
    "workspaces.fresh_refs": warm_refs,
    "workspaces.max_count": warm_refs,
    "workspaces.max_size": warm_refs,
    "workspaces.rm_work": lambda world, agent: build_with(world, agent).files["local.conf"],
    "trust.untrusted_may_read_caches": strangers_container("mounts"),
    "trust.private_cache_size": kept_for_a_pull_request,
    "trust.untrusted_may_use_credentials": lambda _, agent: logins_for(agent, {}),
    "trust.untrusted_images": lambda _, agent: image_guard(agent).is_known("debian:12"),
    "trust.untrusted_network": strangers_container("network"),
    "trust.untrusted_cpus": strangers_container("cpus"),
    "trust.untrusted_memory": strangers_container("memory_bytes"),
    "trust.untrusted_time_limit": strangers_time_limit,
    "gitlab.trusted_refs": lambda _, agent: job_trust(agent, is_protected=False),
    "gitlab.trusted_projects": lambda _, agent: job_trust(agent, is_protected=True),
    "gitlab.largest_artifact": gitlab_largest,
    "gitlab.keep_checkouts_days": checkouts_left,
    "github.trusted_refs": own_push,
    "github.trusted_repositories": own_push,
    "github.forks": lambda _, agent: github_verdict(agent, "pull_request", is_fork=True),
    "github.build_forks_in_privileged_events": lambda _, agent: github_verdict(
        agent, "pull_request_target", is_fork=True
    ),
    "github.largest_artifact": github_largest,
    "github.only_smidr_jobs": lambda world, agent: looks_at_workflows(
        agent.github, world.bench.host().home
    ),
    "github.smidr_actions": lambda _, agent: is_smidr_step(agent.github, "acme/build@v1"),
    "github.runners.mode": lambda world, agent: agent_socket(world.bench.host(agent)),
    "github.runners.slots": lambda world, agent: total_slots(world.bench.host(agent)),
    "github.runners.tarball": official_runner,
    "github.runners.sha256": official_runner,
    "github.runners.user": runner_user,
    "github.runners.directory": lambda world, agent: runners_directory(
        agent.github.runners, world.bench.host(agent)
    ),
    "github.runners.image": runner_image,
    "github.runners.cpus": runner_container("cpus"),
    "github.runners.memory": runner_container("memory_bytes"),
    "github.runners.environment": runner_container("environment"),
    "directories.downloads": places,
    "directories.sstate": places,
    "directories.layers": places,
    "directories.workspaces": places,
    "directories.artifacts": artifacts_place,
    "artifacts.external_store.url": asked_of_external,
    "artifacts.external_store.credentials_file": asked_of_external,
    "artifacts.external_store.ca_file": asked_of_external,
    "artifacts.external_store.endpoint": external_in_the_cloud,
    "artifacts.external_store.region": external_in_the_cloud,
    "artifacts.external_store.public_url": link_to_external,
    "artifacts.external_store.link_days": signed_links,
    "artifacts.external_store.untrusted": strangers_place,
    "api.address": listening,
    "api.http_address": listening,
    "api.tls_certificate_file": listening,
    "api.tls_key_file": listening,
    "api.client_ca_file": listening,
    "api.client_certificates": rights_of_ops,
    "api.requests_per_minute": rights_of_ops,
}
"""Key -> what the program makes of the operator's settings, by the part that uses the key."""


def test_every_key_of_smidr_yaml_has_a_consumer() -> None:
    assert set(unproven(iter(PROJECT_KEYS), PROJECT_CONSUMERS)) == REFUSED_INSTEAD


def test_every_key_of_agent_yaml_has_a_consumer() -> None:
    assert unproven(iter(AGENT_KEYS), AGENT_CONSUMERS) == []


@pytest.mark.parametrize(
    "key", [key for key in PROJECT_KEYS if key.name in PROJECT_CONSUMERS], ids=lambda key: key.name
)
def test_each_key_of_smidr_yaml_has_an_effect(world: World, key: Key) -> None:
    consumer = PROJECT_CONSUMERS[key.name]
    assert_effect(key, ProjectConfig, lambda config: consumer(world, config))


@pytest.mark.parametrize("key", AGENT_KEYS, ids=lambda key: key.name)
def test_each_key_of_agent_yaml_has_an_effect(world: World, key: Key) -> None:
    consumer = AGENT_CONSUMERS[key.name]
    assert_effect(key, AgentConfig, lambda agent: consumer(world, agent))


def test_another_version_of_the_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        load_project_text(
            "name: project\nconfig_version: 2\n", "smidr.yaml", directory=Path(), environ={}
        )


def test_the_project_can_lower_the_operators_limits_but_not_raise_them(world: World) -> None:
    def limited(project: dict[str, object], operator: dict[str, object]) -> Seen:
        config = {"name": "project", "build": {"image": "image"}, "container": project}
        roomy = {"min_free_disk": 1, "min_free_disk_percent": 0}
        agent = AgentConfig.model_validate({"limits": {**roomy, **operator}})
        return world.build(ProjectConfig.model_validate(config), agent)

    operator: dict[str, object] = {"cpus_per_build": 1, "memory_per_build": "4G"}
    for wanted in ({"cpu_count": 64, "memory": "512G"}, {}):
        seen = limited(wanted, operator)
        assert seen.spec is not None
        assert (seen.spec.cpus, seen.spec.memory_bytes) == (1, 4 * 1024**3)
        assert 'BB_NUMBER_THREADS = "1"' in seen.files["local.conf"]
    less = limited({"cpu_count": 0.5, "memory": "1G"}, operator).spec
    assert less is not None
    assert (less.cpus, less.memory_bytes) == (0.5, 1024**3)


def test_a_layer_of_another_release_is_named(world: World) -> None:
    config = {"name": "project", "build": {"image": "image"}, "yocto_series": "scarthgap"}
    record = world.build(ProjectConfig.model_validate(config)).record
    assert record.failure_kind == LayerError.kind
    assert "core" in record.failure_message
