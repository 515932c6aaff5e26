"""The part of `agent.yaml` that says how big caches may grow, and how long they keep things."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, Strict, model_validator
from pydantic import WithJsonSchema as Json

from smidr_ci.config.base import MisfitError, Model
from smidr_ci.config.matching import Called, Matching, shown
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.config.values import Flag, MemorySize, MirrorLines

__all__ = ["Age", "CacheLimits", "HashServerDoor", "parse_age"]

_AGE: Final = re.compile(r"([0-9]{1,6}) ?([hdwHDW])?")
_DAYS: Final = {"": 1.0, "h": 1 / 24, "d": 1.0, "w": 7.0}
_MAX_DAYS: Final = 36_500


def parse_age(value: object) -> float:
    """Days from `12h`, `30d`, `8w`, or a number of days; raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        days = float(value)
    else:
        found = _AGE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"is {shown(value)}, which is no age; write 12h, 30d or 8w")
        days = int(found[1]) * _DAYS[(found[2] or "").lower()]
    if not 0 <= days <= _MAX_DAYS:
        raise ValueError("is an age out of range; write 12h, 30d or 8w")
    return days


Age = Annotated[
    float,
    BeforeValidator(parse_age),
    Json(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": _MAX_DAYS},
                {"type": "string", "pattern": f"^{_AGE.pattern}$"},
            ]
        }
    ),
    Called("age"),
]
"""Days, written as `12h`, `30d`, `8w` or a number of days."""

HashServer = Annotated[
    str,
    Matching(
        "address",
        r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}|wss?://[A-Za-z0-9][A-Za-z0-9._:/-]{0,252}",
        "the address of a hash server: host:port or wss://host/path",
    ),
]

HostAndPort = Annotated[
    str,
    Matching(
        "address",
        r"([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}",
        "host:port",
    ),
]
"""Where a program listens, such as `10.0.0.5:8686` or `[::1]:8686`."""
Release = Annotated[
    str, Matching("release", r"[1-9][0-9]?\.[0-9]{1,3}", "a BitBake release: 2.8 for scarthgap")
]


class HashServerDoor(Model):
    """An address by which other hosts reach this host's hash server."""

    address: HostAndPort
    """`127.0.0.1:8686` for this host alone, as by a tunnel; `10.0.0.5:8686` for a network, in which
    whoever reaches it is answered: BitBake's protocol knows no login and no encryption."""
    writable: Flag = False
    """Whether who connects may add equivalences, by which all that use it find sstate. For hosts
    whose builds you trust as your own; strangers' builds need an address where this is off."""
    release: Release | None = None
    """The BitBake release whose server it is, such as `2.8`; the default is the one that a build of
    this host used last."""


Percent = Annotated[int, Field(ge=0, le=95), Strict(), Called("percent")]


class CacheLimits(Model):
    """How big caches may grow, and how long they keep what nobody uses.

    What running and queued builds may need always stays. Logs and artifacts have their limits in
    `history`, kept workspaces also in `limits`.
    """

    sstate_max_size: MemorySize | None = None
    """Size of sstate on disk; what was used least recently goes first. The default is no limit."""
    sstate_max_age: Age | None = None
    """How long sstate objects stay unused: `12h`, `30d`, `8w`. The default is no limit."""
    downloads_max_size: MemorySize | None = None
    """Size of the downloads; the default is no limit."""
    downloads_max_age: Age | None = None
    """How long downloads stay that no build fetched or checked; the default is no limit."""
    layers_max_size: MemorySize | None = None
    """Size of layer mirrors and trees; the default is no limit."""
    layers_max_age: Age | None = 90
    """How long unused layer mirrors and trees stay."""
    workspaces_max_age: Age | None = None
    """How long kept workspaces stay; their size and number have limits in `limits`."""
    images_max_size: MemorySize | None = None
    """Size of the builder images that smidr made; the default is no limit."""
    images_max_age: Age | None = 90
    """How long builder images stay that no build used."""
    parse_cache_max_size: MemorySize | None = None
    """Size of parse caches and compiled BitBake modules; the default is no limit."""
    parse_cache_max_age: Age | None = 30
    """How long unused parse caches and compiled BitBake modules stay."""
    job_caches_max_size: MemorySize | None = 20 << 30
    """Size of what jobs keep with `cache:` of `.gitlab-ci.yml`; one archive may not be bigger
    either."""
    job_caches_max_age: Age | None = 30
    """How long such an archive stays that no job read or wrote."""
    gc_below_free: Percent = 15
    """When less than so many percent of a disk are free, what was used least recently goes from all
    caches on it. 0 never does that."""
    gc_until_free: Percent = 20
    """Until so many percent are free again."""
    hash_server: Flag = True
    """Whether the agent runs a hash-equivalence server for all builds with OE-Core, from scarthgap
    on. Without one, builds use none: a project that asks for its own misses what others made."""
    hash_server_upstream: HashServer | None = None
    """Another hash server to ask, `host:port` or `wss://...`: that of `sstate_mirrors`."""
    hash_server_address: HostAndPort | None = None
    """Another host's hash server, instead of one of this host: `host:port` of an address that is
    `writable`. Trusted builds ask and teach it, through the agent."""
    hash_server_read_only_address: HostAndPort | None = None
    """The same for untrusted builds: one that is not `writable`. Without it they use none."""
    hash_server_doors: tuple[HashServerDoor, ...] = ()
    """Where other hosts reach this host's hash server."""
    sstate_mirrors: MirrorLines = ()
    """SSTATE_MIRRORS of all builds, after those of the project."""
    premirrors: MirrorLines = ()
    """PREMIRRORS of all builds, after those of the project."""
    share: SharedCaches | None = None
    """A store that hosts share: builds read from it, the agent uploads what is new."""
    yocto_mirror: Flag = False
    """Use the Yocto Project's public sstate, with its hash server as upstream."""
    keep_builds: Annotated[int, Field(ge=0, le=1000), Strict(), Called("number")] = 0
    """Keep the sstate objects that so many of the newest builds of each project used."""

    @property
    def has_common_hash_server(self) -> bool:
        """Whether its equivalences are those of the hosts that it shares sstate with."""
        return bool(self.hash_server_address or self.hash_server_upstream or self.hash_server_doors)

    @model_validator(mode="after")
    def _check_hash_server(self) -> Self:
        if self.hash_server_read_only_address and not self.hash_server_address:
            raise MisfitError(
                "hash_server_read_only_address is for untrusted builds, beside hash_server_address",
                ("hash_server_read_only_address",),
                "Name both.",
            )
        for key in ("hash_server_upstream", "hash_server_doors"):
            if self.hash_server_address and getattr(self, key):
                raise MisfitError(
                    f"{key} is for a hash server of this host, and hash_server_address for "
                    "another one",
                    (key,),
                    "Keep one of them.",
                )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gc_until_free < self.gc_below_free:
            raise MisfitError(
                f"gc_until_free ({self.gc_until_free}) is less than gc_below_free "
                f"({self.gc_below_free})",
                ("gc_until_free",),
                "Free at least as much as is wanted.",
            )
        return self
