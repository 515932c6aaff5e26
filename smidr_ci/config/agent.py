"""`agent.yaml`: how this host builds. It belongs to the operator and is trusted.

Each attribute's docstring is its line in the configuration reference.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo, model_validator

from smidr_ci.config.base import KeyPath, MisfitError, Model
from smidr_ci.config.caches import CacheLimits
from smidr_ci.config.confinement import host_path
from smidr_ci.config.environment import check_environment_list
from smidr_ci.config.github import GitHubSettings
from smidr_ci.config.gitlab import GitLabSettings
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.problems import ConfigProblemsError
from smidr_ci.config.reading import misfit_problems, read_config_text, read_model
from smidr_ci.config.trust import Host, TrustSettings
from smidr_ci.config.values import ConfValue, Count, Flag, ImageReference, MemorySize, Word
from smidr_ci.config.workspaces import WorkspaceSettings
from smidr_ci.errors import ConfigError

__all__ = [
    "AgentConfig",
    "AgentDirectories",
    "Api",
    "Credential",
    "Engine",
    "Git",
    "History",
    "Images",
    "Limits",
    "load_agent",
    "read_secret",
]

_MAX_SECRET = 64 * 1024


def _absolute(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip() or "\x00" in value:
        raise ValueError("is not a path")
    context: Mapping[str, Any] = info.context or {}
    return host_path(value, context.get("directory", Path.cwd()), context.get("home"))


HostFile = Annotated[Path, BeforeValidator(_absolute, json_schema_input_type=str), Called("path")]
"""Absolute after loading: relative to agent.yaml, a leading `~/` is the home directory."""

Variable = Annotated[str, Matching("name", "[A-Za-z_][A-Za-z0-9_]{0,127}", "a variable's name")]
BuilderUser = Annotated[
    str,
    Matching(
        "uid:gid or user",
        "[1-9][0-9]{0,9}(:[0-9]{1,10})?|[a-z_][a-z0-9_-]{0,31}",
        "the name of a user or uid:gid in numbers, and not root",
        refused="^root$",
    ),
]
Address = Annotated[
    str,
    Matching("URL", r"(https?|file|unix|tcp|ssh|npipe)://[^\s\x00-\x1f\x7f]{1,1024}", "a URL"),
]
MirrorUrl = Annotated[
    str,
    Matching("URL", r"(https?|file)://[^\s\x00-\x1f\x7f]{1,1024}", "the URL of a Debian mirror"),
]
Customer = Annotated[
    str,
    Matching(
        "customer",
        "[a-z0-9]([a-z0-9._-]{0,46}[a-z0-9])?",
        "a customer's name: 1 to 48 of a-z, 0-9 and . _ - (a letter or digit at both ends)",
    ),
]
ListenAddress = Annotated[
    str,
    Matching(
        "HOST:PORT",
        r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{0,253}):[0-9]{1,5}",
        "an address such as 127.0.0.1:50051 or :50051",
    ),
]
CertificateName = Annotated[
    str, Matching("name", r"[^\x00-\x1f\x7f]{1,256}", "the name in a certificate")
]
ClientScope = Literal["read", "build", "admin"]
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


class Limits(Model):
    """How much builds may use."""

    cpus_per_build: Annotated[float, Field(ge=0.1, le=4096), Strict(), Called("number")] | None = (
        None
    )
    """CPUs of each build; a project may ask for less. The default is no limit."""
    memory_per_build: MemorySize | None = None
    """Memory of each build; a project may ask for less. The default is no limit."""
    max_concurrent_builds: (
        Annotated[int, Field(ge=1, le=1000), Strict(), Called("number")] | None
    ) = None
    """Builds that the agent runs at once; the variable `SMIDR_MAX_CONCURRENT_BUILDS` wins over it.
    The default is as many as `cpus_per_build` goes into the host's CPUs; without that key, one per
    8 CPUs and 8G of memory. At least one."""
    max_queued_builds: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("number")] = 1000
    """Builds that may wait for the agent; it refuses more."""
    builds_per_customer: Count = 1
    """Builds of the same customer that run at once."""
    customers: Annotated[dict[Customer, Count], Called("names and numbers")] = Field(
        default_factory=dict
    )
    """Customers that may run another number of builds at once: `{acme: 2}`."""
    memory_budget: MemorySize | None = None
    """What the memory of all running builds may come to; a build without a limit counts as its
    even share, one with a higher limit than this runs alone. The default is 90 % of the host's."""
    max_memory_pressure: Annotated[float, Field(ge=0, le=100), Strict(), Called("percent")] = 20
    """Start no build when tasks of this host stood still for want of memory for more of the last
    ten seconds (PSI, `some avg10`); 0 does not look."""
    min_free_disk: MemorySize = 20 * 1024**3
    """Start no build when less is free on a file system that builds write to."""
    min_free_disk_percent: Annotated[float, Field(ge=0, le=99), Strict(), Called("percent")] = 10
    """The same in percent of the file system, for its bytes and for its inodes."""
    kept_workspaces_size: MemorySize = 100 * 1024**3
    """Disk for the workspaces of failed builds; the oldest go first. Warm ones have limits in
    `workspaces`."""
    kept_workspaces_count: Annotated[int, Field(ge=0, le=10_000), Strict(), Called("number")] = 10
    """How many workspaces of failed builds are kept."""


class History(Model):
    """How long the agent remembers builds that are over, with their logs and artifacts."""

    max_builds: Annotated[int, Field(ge=1, le=1_000_000), Strict(), Called("number")] = 10_000
    """Builds that are remembered; the oldest go first."""
    max_days: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("days")] | None = None
    """Forget builds after so many days; the default is never."""
    max_size: MemorySize = 200 * 1024**3
    """Disk for the logs and artifacts of all builds; the oldest go first."""
    keep_newest: Annotated[int, Field(ge=1, le=10_000), Strict(), Called("number")] = 5
    """The newest builds of each customer's project that stay whatever the limits say, and so does
    the newest that completed."""
    purge_after_days: Annotated[int, Field(ge=0, le=100_000), Strict(), Called("days")] = 7
    """What is forgotten is only hidden at first; after so many days it is removed for good."""


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


class Api(Model):
    """The agent's API over the network; over its unix sockets it always answers."""

    address: ListenAddress | None = None
    """Where gRPC listens: `127.0.0.1:50051`, `[::1]:50051`, or `:50051` for all addresses. Any
    but this host's own needs TLS. By default only the unix socket."""
    http_address: ListenAddress | None = None
    """The same for HTTP."""
    tls_certificate_file: HostFile | None = None
    """The server's certificate with its chain, PEM; used on all addresses."""
    tls_key_file: HostFile | None = None
    """Its private key, PEM, without passphrase."""
    client_ca_file: HostFile | None = None
    """Certificates of the authorities that sign clients' certificates, PEM: every client needs a
    certificate then."""
    client_certificates: Annotated[
        dict[CertificateName, ClientScope], Called("names and scopes")
    ] = Field(default_factory=dict)
    """What a client without token may do: common or alternative name of its certificate, and
    `read`, `build` or `admin`. Other certificates may `build`."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000), Strict(), Called("number")] = (
        1200
    )
    """Requests of one caller over the network; as many may come at once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            missing = "tls_key_file" if self.tls_key_file is None else "tls_certificate_file"
            raise MisfitError("TLS needs a certificate and its key", (), f"Set {missing} too.")
        if self.client_ca_file is not None and self.tls_certificate_file is None:
            raise MisfitError(
                "clients show certificates over TLS only",
                ("client_ca_file",),
                "Set tls_certificate_file and tls_key_file too.",
            )
        if self.client_certificates and self.client_ca_file is None:
            raise MisfitError(
                "no client's certificate is looked at without client_ca_file",
                ("client_certificates",),
                "Set client_ca_file, or remove this.",
            )
        return self


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
    trust: TrustSettings = TrustSettings()
    """What untrusted builds may do."""
    gitlab: GitLabSettings = GitLabSettings()
    """Jobs that come from GitLab."""
    github: GitHubSettings = GitHubSettings()
    """Jobs that come from GitHub."""
    directories: AgentDirectories = AgentDirectories()
    """Where things are kept."""
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


def read_secret(path: Path) -> str:
    """A secret's text without the newline at its end; raises `ConfigError`, never with the text."""
    problem = _why_not_secret(path)
    if problem:
        raise ConfigError(problem, where=str(path), hint=f"chmod 600 {path}")
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_SECRET).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("can't be read as text", where=str(path)) from error


def _secret_problems(config: AgentConfig) -> Iterator[MisfitError]:
    for index, credential in enumerate(config.git.credentials):
        for key, path in credential.secret_files:
            problem = _why_not_secret(path)
            if problem:
                at: KeyPath = ("git", "credentials", index, key)
                yield MisfitError(f"the file {path} {problem}", at, f"chmod 600 {path}")
    key_file = config.api.tls_key_file
    problem = _why_not_secret(key_file) if key_file is not None else None
    if problem:
        at = ("api", "tls_key_file")
        yield MisfitError(f"the file {key_file} {problem}", at, f"chmod 600 {key_file}")


def _why_not_secret(path: Path) -> str | None:
    try:
        info = path.stat()
    except OSError as error:
        return f"can't be used: {error.strerror}"
    if not stat.S_ISREG(info.st_mode):
        return "is not a file"
    if info.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return "holds a secret and is open to other users"
    return None


def _refuse_foreign_writers(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(
            "can be written by any user of this host", where=str(path), hint=f"chmod 600 {path}"
        )
