"""The part of `agent.yaml` that says what strangers' builds may do on this host."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, Strict

from smidr_ci.config.base import Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import Flag, MemorySize, Word

__all__ = ["Host", "TrustSettings"]

Host = Annotated[
    str, Matching("host", r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?(:[0-9]{1,5})?", "a host")
]
ImagePattern = Annotated[
    str,
    Matching("image", r"[a-z0-9*?][A-Za-z0-9._:/@*?-]{0,511}", "an image's name, with * and ?"),
]


class TrustSettings(Model):
    """What untrusted builds may do: those of forks' pull requests and merge requests.

    They never write to the shared caches, and never see `environment` or passwords of proxies.
    """

    untrusted_may_read_caches: Flag = True
    """Whether they may read the shared downloads and sstate. What is private in those, such as the
    sources of another customer's recipes, can then be read by strangers."""
    private_cache_size: MemorySize = 20 * 1024**3
    """Disk for the private caches of pull requests and merge requests; who came least recently goes
    first."""
    untrusted_may_use_credentials: tuple[Host, ...] = ()
    """Git hosts and image registries that they may log in at with your credentials, with `:port`
    where their URLs have one. Whatever these open can then be read by strangers."""
    untrusted_images: tuple[ImagePattern, ...] = ()
    """Images that their configs may name as `container.base_image` whatever they hold, and install
    packages on, with `*` and `?`: `debian:*`. Others are used as they are, and only if they came
    from a registry where this host has no login."""
    untrusted_network: Word | None = None
    """Network of their containers; the default is `engine.network`."""
    untrusted_cpus: Annotated[float, Field(ge=0.1, le=4096), Strict(), Called("number")] | None = (
        None
    )
    """CPUs of each; the default is `limits.cpus_per_build`, and never more than that."""
    untrusted_memory: MemorySize | None = None
    """Memory of each; the default is `limits.memory_per_build`, and never more than that."""
    untrusted_time_limit: Annotated[int, Field(ge=1, le=100_000), Strict(), Called("minutes")] = 720
    """Minutes after which BitBake is stopped; a project may ask for less."""

    def knows_image(self, reference: str) -> bool:
        """Whether the operator vouches for the image."""
        return any(fnmatchcase(reference, pattern) for pattern in self.untrusted_images)
