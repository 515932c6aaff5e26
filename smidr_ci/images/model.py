"""What a builder image is asked for with, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock
from smidr_ci.config.agent import AgentConfig
from smidr_ci.engine import Engine
from smidr_ci.images.packages import YOCTO_HOST_PACKAGES

__all__ = [
    "IMAGE_LABEL",
    "PROXY_VARIABLES",
    "BaseImage",
    "BuilderImage",
    "ImageSettings",
    "Making",
    "Report",
    "StoredImage",
    "proxy_environment",
]

IMAGE_LABEL: Final = "io.smidr.image"
"""Label of every image that smidr made: `base` or `builder`."""

PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")

Report = Callable[[str], None]
"""Takes one line of progress for the user."""


@dataclass(frozen=True)
class BuilderImage:
    """The image that a build runs in."""

    id: str
    """Content id, `sha256:...`."""
    reference: str
    """The name it was found by."""
    description: str
    """For people: base, and what was installed on it."""


@dataclass(frozen=True)
class BaseImage:
    """What packages are installed on."""

    id: str
    reference: str
    is_chosen: bool
    """The project named it; else it is the host's default or a bootstrapped one."""


@dataclass(frozen=True)
class StoredImage:
    """An image that smidr made and the engine keeps."""

    id: str
    tags: tuple[str, ...]
    kind: str
    """`base` or `builder`."""
    created: float
    """Seconds since 1970."""
    size_bytes: int


@dataclass(frozen=True)
class ImageSettings:
    """The operator's part."""

    suite: str = "bookworm"
    """Debian release to bootstrap."""
    default_base: str = "debian:bookworm-slim"
    """Used when the project names no base image."""
    mirror: str | None = None
    """Debian mirror to bootstrap from; None is mmdebstrap's default."""
    apt_sources: tuple[str, ...] = ()
    """More lines for the sources.list of a bootstrapped base."""
    registry_auth_file: Path | None = None
    """Docker's `config.json` to take logins from; None is the user's own."""
    network: str | None = None
    """Network mode of the container that packages are installed in; None is the default."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Proxies, for apt and mmdebstrap; never part of an image."""
    default_packages: tuple[str, ...] = YOCTO_HOST_PACKAGES
    """Installed on the default or a bootstrapped base when the project lists no packages."""
    mmdebstrap: str = "mmdebstrap"
    """Program to bootstrap with."""

    @classmethod
    def from_agent(cls, agent: AgentConfig, environ: Mapping[str, str]) -> ImageSettings:
        """The operator's settings, and the proxies of the environment."""
        images, engine = agent.images, agent.engine
        return cls(
            suite=images.bootstrap_suite,
            default_base=images.default_base or f"debian:{images.bootstrap_suite}-slim",
            mirror=images.bootstrap_mirror,
            apt_sources=images.extra_apt_sources,
            registry_auth_file=engine.registry_auth_file,
            # Builds may have to do without a network; installing packages can't.
            network=None if engine.network == "none" else engine.network,
            environment=proxy_environment(environ),
        )


@dataclass(frozen=True)
class Making:
    """What one call of `ImageStore.ensure` works with."""

    engine: Engine
    settings: ImageSettings
    clock: Clock
    report: Report
    cancel: CancelToken | None = None
    rebuild: bool = False
    uses_logins: bool = True
    """Whether a registry may be shown the user's login."""


def proxy_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables of an environment, in both cases."""
    names = (*PROXY_VARIABLES, *(name.upper() for name in PROXY_VARIABLES))
    return {name: environ[name] for name in names if environ.get(name)}
