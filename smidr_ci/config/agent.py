"""`agent.yaml`: how this host builds. It belongs to the operator and is trusted.

Each attribute's docstring is its line in the configuration reference.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from smidr_ci.config.api import Api
from smidr_ci.config.artifacts import ArtifactSettings
from smidr_ci.config.base import KeyPath, MisfitError, Model
from smidr_ci.config.builds import BuildSettings
from smidr_ci.config.caches import CacheLimits
from smidr_ci.config.environment import check_environment_list
from smidr_ci.config.github import GitHubSettings
from smidr_ci.config.gitlab import GitLabSettings
from smidr_ci.config.host_files import HostFile, why_not_secret
from smidr_ci.config.host_values import BuilderUser, Variable
from smidr_ci.config.limits import History, Limits
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.config.reading import misfit_problems, read_config_text, read_model
from smidr_ci.config.trust import Host, TrustSettings
from smidr_ci.config.values import ConfValue, Flag, ImageReference, Word
from smidr_ci.config.workspaces import WorkspaceSettings
from smidr_ci.errors import ConfigError

__all__ = [
    "AgentConfig",
    "AgentDirectories",
    "Credential",
    "Engine",
    "Git",
    "Images",
    "load_agent",
]

Address = Annotated[
    str,
    Matching("URL", r"(https?|file|unix|tcp|ssh|npipe)://[^\s\x00-\x1f\x7f]{1,1024}", "a URL"),
]
MirrorUrl = Annotated[
    str,
    Matching("URL", r"(https?|file)://[^\s\x00-\x1f\x7f]{1,1024}", "the URL of a Debian mirror"),
]
Seconds = Annotated[float, Field(gt=0, le=86_400), Strict(), Called("seconds")]


class Credential(Model):
    """How to log in at one git host; secrets stay in files that only you can read."""

    host: Host
    """The host, as it stands in the URLs: `git.example.com`, with `:port` where they have one."""
    username: Annotated[str, Matching("name", r"[^\s:@/\x00-\x1f\x7f]{1,128}", "a user name")] = (
        "oauth2"
    )
    """User name that goes with the token; most hosts take any."""
    token_file: HostFile | None = None
    """File with a token or password, for https."""
    netrc_file: HostFile | None = None
    """File in netrc format, for https."""
    ssh_key_file: HostFile | None = None
    """Private key, for ssh; without passphrase."""
    known_hosts_file: HostFile | None = None
    """Host keys to trust for ssh; the default is the user's own known_hosts."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token_file and self.netrc_file:
            raise MisfitError(
                f"host {self.host} has both token_file and netrc_file",
                ("netrc_file",),
                "Keep one of them.",
            )
        if not (self.token_file or self.netrc_file or self.ssh_key_file or self.known_hosts_file):
            raise MisfitError(
                f"host {self.host} has no credential",
                hint="Give token_file, netrc_file or ssh_key_file.",
            )
        return self

    @property
    def secret_files(self) -> tuple[tuple[str, Path], ...]:
        """Key and path of each file that holds a secret."""
        keys = ("token_file", "netrc_file", "ssh_key_file")
        return tuple((key, path) for key in keys if (path := getattr(self, key)) is not None)


class Git(Model):
    """Fetching layers."""

    credentials: tuple[Credential, ...] = ()
    """How to log in, one entry per host."""
    timeout_s: Seconds = 600
    """Give up a git command after so many seconds without an end."""
    attempts: Annotated[int, Field(ge=1, le=10), Strict(), Called("number")] = 3
    """Tries per URL when the network or the server fails."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        for index, credential in enumerate(self.credentials):
            if credential.host in seen:
                at = ("credentials", index, "host")
                raise MisfitError(f"host {credential.host} has two entries", at, "Join them.")
            seen.add(credential.host)
        return self


class Engine(Model):
    """The container engine."""

    url: Address | None = None
    """Its address, such as `unix:///run/docker.sock`; the default is DOCKER_HOST, then Docker's
    own socket."""
    network: Word | None = None
    """Network of build containers; the default is the engine's."""
    builder_user: BuilderUser | None = None
    """User name or `uid:gid` that builds run as when root runs smidr; the default is the user
    behind sudo, then the user `smidr`, then 1000:1000. Anybody else's builds run as themselves."""
    registry_auth_file: HostFile | None = None
    """Docker's `config.json` with logins for registries."""


class Images(Model):
    """Builder images."""

    default_base: ImageReference | None = None
    """Base image for projects that name none; the default is Debian's slim image of
    `bootstrap_suite`. When it can't be pulled, a Debian base is bootstrapped."""
    bootstrap_suite: Word = "bookworm"
    """Debian release to bootstrap."""
    bootstrap_mirror: MirrorUrl | None = None
    """Debian mirror to bootstrap from; the default is Debian's own."""
    extra_apt_sources: tuple[ConfValue, ...] = ()
    """More lines for the sources.list of bootstrapped bases."""


class AgentDirectories(Model):
    """Where things are kept, when not under `$SMIDR_HOME`."""

    downloads: HostFile | None = None
    """DL_DIR of all builds."""
    sstate: HostFile | None = None
    """SSTATE_DIR of all builds."""
    layers: HostFile | None = None
    """Layer mirrors and trees."""
    workspaces: HostFile | None = None
    """Build directories."""
    artifacts: HostFile | None = None
    """What builds left."""


class AgentConfig(Model):
    """The whole of `agent.yaml`; paths are absolute."""

    substitution: tuple[Variable, ...] = ()
    """Variables that `${...}` in project configs may use, besides `YOCTO_*` and `SMIDR_*`."""
    environment: Annotated[tuple[Variable, ...], AfterValidator(check_environment_list)] = ()
    """Variables of the host that builds may see, besides the proxies."""
    allow_config_directories: Flag = True
    """Whether project configs may name directories of the host outside their own."""
    git: Git = Git()
    """Fetching layers."""
    engine: Engine = Engine()
    """The container engine."""
    images: Images = Images()
    """Builder images."""
    limits: Limits = Limits()
    """How much builds may use."""
    history: History = History()
    """How long builds are remembered."""
    cache: CacheLimits = CacheLimits()
    """How big caches may grow."""
    workspaces: WorkspaceSettings = WorkspaceSettings()
    """Whether builds start fresh or warm."""
    builds: BuildSettings = BuildSettings()
    """How builds that wait at the same time go together."""
    trust: TrustSettings = TrustSettings()
    """What untrusted builds may do."""
    gitlab: GitLabSettings = GitLabSettings()
    """Jobs that come from GitLab."""
    github: GitHubSettings = GitHubSettings()
    """Jobs that come from GitHub."""
    directories: AgentDirectories = AgentDirectories()
    """Where things are kept."""
    artifacts: ArtifactSettings = ArtifactSettings()
    """What becomes of artifacts that the forge does not take."""
    api: Api = Api()
    """The agent's API over the network; over its unix sockets it always answers."""


def load_agent(path: Path, *, home: Path | None = None) -> AgentConfig:
    """The operator's settings; a missing file means the defaults.

    `home` stands for `~`; None is the user's home. Raises `ConfigError`.
    """
    if not path.exists() and not path.is_symlink():
        return AgentConfig()
    text = read_config_text(path, hint_if_missing="")
    _refuse_foreign_writers(path)
    context = {"directory": path.parent.absolute(), "home": home}
    checked = read_model(text, str(path), AgentConfig, context=context)
    problems = misfit_problems(_secret_problems(checked.model), checked.source)
    if problems:
        raise ConfigProblemsError(problems)
    return checked.model


def _secret_problems(config: AgentConfig) -> Iterator[MisfitError]:
    for index, credential in enumerate(config.git.credentials):
        for key, path in credential.secret_files:
            problem = why_not_secret(path)
            if problem:
                at: KeyPath = ("git", "credentials", index, key)
                yield MisfitError(f"the file {path} {problem}", at, f"chmod 600 {path}")
    share = config.cache.share
    for misfit in share.misfits() if share is not None else ():
        yield MisfitError(misfit.message, ("cache", "share", *misfit.at), misfit.hint)
    external = config.artifacts.external_store
    for misfit in external.misfits() if external is not None else ():
        yield MisfitError(misfit.message, ("artifacts", "external_store", *misfit.at), misfit.hint)
    key_file = config.api.tls_key_file
    problem = why_not_secret(key_file) if key_file is not None else None
    if problem:
        at = ("api", "tls_key_file")
        yield MisfitError(f"the file {key_file} {problem}", at, f"chmod 600 {key_file}")


def _refuse_foreign_writers(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(
            "can be written by any user of this host", where=str(path), hint=f"chmod 600 {path}"
        )
