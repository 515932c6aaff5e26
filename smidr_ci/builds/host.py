"""The machine as a build needs it: directories, engine, images, layers, history.

Everything is made when it is first used, so that a command pays only for what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from smidr_ci.builds.credentials import credentials_of
from smidr_ci.builds.hashserv import ELSEWHERE, HashServerElsewhere, HashServers
from smidr_ci.builds.mirrors import YOCTO_HASH_SERVER
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.places import Places, usual_places
from smidr_ci.builds.sharing import AGENTS_READERS, OwnReaders
from smidr_ci.builds.store import BuildStore
from smidr_ci.builds.stranger import SCHEMES, logins_for
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.config.agent import AgentConfig, load_agent
from smidr_ci.config.loader import LoadedProject, load_project
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.runtime import User
from smidr_ci.containers.user import builder_user
from smidr_ci.engine import Engine
from smidr_ci.files import make_private_dir
from smidr_ci.home import Home
from smidr_ci.images.model import ImageSettings
from smidr_ci.images.store import ImageStore
from smidr_ci.layers.store import LayerStore
from smidr_ci.trust import Trust
from smidr_ci.workspaces.kept_caches import KeptCaches
from smidr_ci.workspaces.parse_cache import ParseCache
from smidr_ci.workspaces.store import WorkspaceStore

__all__ = ["Host", "load_project_config"]


@dataclass(frozen=True)
class Host:
    """One `$SMIDR_HOME` with the operator's settings."""

    home: Home
    agent: AgentConfig
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    side_by_side: int = 1
    """How many builds may run at once: a build without limits of its own gets an even share."""
    is_agent: bool = False
    """Whether what it starts may outlive a build."""

    @classmethod
    def open(cls, environ: Mapping[str, str] = os.environ) -> Host:
        """The host that the environment names; raises `HostError` or `ConfigError`."""
        home = Home.from_environment(environ)
        return cls(home, load_agent(home.agent_config), environ)

    @cached_property
    def user(self) -> User:
        """Who builds run as."""
        return builder_user(self.environ, self.agent.engine.builder_user)

    @cached_property
    def engine(self) -> Engine:
        """The connection to the container engine."""
        return Engine(self.agent.engine.url, environ=self.environ)

    @cached_property
    def runtime(self) -> DockerRuntime:
        """The containers of this home."""
        return DockerRuntime(
            engine=self.engine,
            owner=str(self.home.root),
            clock=self.clock,
            image_accounts=self.home.image_accounts,
        )

    @property
    def image_settings(self) -> ImageSettings:
        """The operator's part of how builder images are made."""
        return ImageSettings.from_agent(self.agent, self.environ)

    @cached_property
    def images(self) -> ImageStore:
        """Builder images."""
        return ImageStore(self.engine, self.image_settings, locks=self.home.locks, clock=self.clock)

    @cached_property
    def store(self) -> BuildStore:
        """History."""
        return BuildStore.at(self.home)

    @cached_property
    def parse_cache(self) -> ParseCache:
        """Parse caches of earlier builds."""
        return ParseCache(
            self.home.parse_cache, clock=self.clock, owner=(self.user.uid, self.user.gid)
        )

    @property
    def places(self) -> Places:
        """Where caches and workspaces lie unless a project's config says otherwise."""
        return usual_places(self.agent, self.home)

    @property
    def artifacts_root(self) -> Path:
        """Where artifacts are kept, `<customer>/<build-id>/`."""
        return self.agent.directories.artifacts or self.home.artifacts

    def artifacts_of(self, record: BuildRecord) -> Path:
        """Where a build's artifacts are kept."""
        return self.artifacts_root / record.customer / record.build_id

    def control_of(self, build_id: str) -> Path:
        """Where the driver of a build writes; mounted at `/smidr/control`."""
        return self.home.builds / build_id / "control"

    @property
    def kept_caches(self) -> KeptCaches:
        """Private caches between the builds of one pull request."""
        return KeptCaches(self.home.private_caches / "kept", self.agent.trust.private_cache_size)

    @cached_property
    def own_readers(self) -> OwnReaders | None:
        """How builds in the foreground read what hosts share; to be stopped by who drives them."""
        settings = self.agent.cache.share
        if settings is None or self.is_agent:
            return None
        return OwnReaders(settings, self.home.share, self.user, self.clock)

    def share_folder(self, trust: Trust) -> Path | None:
        """Directory with the socket by which a build reads what hosts share.

        The agent's is there before the agent serves it, and after. Raises `SmidrError`.
        """
        if self.agent.cache.share is None:
            return None
        if self.own_readers is not None:
            return self.own_readers.folder(trust)
        folder = make_private_dir(self.home.share) / AGENTS_READERS / trust
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def hash_servers(self) -> HashServers:
        """The hash-equivalence servers of this home."""
        cache = self.agent.cache
        return HashServers(
            self.home.hash_servers,
            self.home.locks,
            self.runtime,
            self.user,
            self.clock,
            network=self.agent.engine.network,
            upstream=cache.hash_server_upstream
            or (YOCTO_HASH_SERVER if cache.yocto_mirror else ""),
            elsewhere=self.hash_server_elsewhere,
        )

    @property
    def hash_server_elsewhere(self) -> HashServerElsewhere | None:
        """Another host's hash server, when the settings name one."""
        cache = self.agent.cache
        if cache.hash_server_address is None:
            return None
        return HashServerElsewhere(
            self.home.hash_servers / ELSEWHERE,
            cache.hash_server_address,
            cache.hash_server_read_only_address or "",
        )

    def layer_store(self, places: Places, trust: Trust = Trust.TRUSTED) -> LayerStore:
        """Mirrors and trees in the directories that the config or the operator chose.

        A stranger's entries open what everybody could read, and no file of this host.
        """
        if trust is Trust.UNTRUSTED:
            return replace(
                self.layer_store(places),
                credentials=logins_for(self.agent, self.environ),
                schemes=SCHEMES,
                proves_access=True,
            )
        return LayerStore(
            places.layers / "mirrors",
            places.layers / "trees",
            self.home.locks,
            credentials=credentials_of(self.agent.git, self.environ),
            clock=self.clock,
            attempts=self.agent.git.attempts,
            timeout_s=self.agent.git.timeout_s,
        )

    def workspace_store(self, places: Places) -> WorkspaceStore:
        """Workspaces in the directory that the config or the operator chose."""
        return WorkspaceStore(
            places.workspaces, owner=(self.user.uid, self.user.gid), clock=self.clock
        )

    def load(self, config_path: Path) -> LoadedProject:
        """Read a project config as this host allows it; raises `ConfigError`."""
        return load_project(config_path, environ=self.environ, operator=self.agent)


def load_project_config(config_path: Path, home: Home, environ: Mapping[str, str]) -> LoadedProject:
    """Read a project config without touching the engine or the store."""
    return load_project(config_path, environ=environ, operator=load_agent(home.agent_config))
