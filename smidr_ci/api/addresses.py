"""Addresses: what they look like, what they stand for, and which may be listened at."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci.api.tls import ServerTls, load_server_tls
from smidr_ci.config.api import Api
from smidr_ci.errors import UsageError

__all__ = [
    "INSECURE_HELP",
    "Endpoint",
    "Listening",
    "UnixAddress",
    "check_exposure",
    "endpoint_of",
    "parse_address",
    "plan_listening",
    "resolve_endpoints",
]

INSECURE_HELP: Final = (
    "Listen without TLS on addresses that other hosts reach. Tokens are still needed, but whoever "
    "sees the traffic can read them, and then do all that their owners may."
)
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^:\[\]/\s]{0,253})):([0-9]{1,5})")
_Resolve = Callable[..., list[Any]]


@dataclass(frozen=True)
class UnixAddress:
    """A unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class Endpoint:
    """A TCP address in numbers; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    @property
    def local_addresses(self) -> tuple[str, ...]:
        """Under which loopback addresses this host's own programs reach it, as `HOST:PORT`."""
        hosts = {"::": ("127.0.0.1", "::1"), "0.0.0.0": ("127.0.0.1",)}  # noqa: S104 - compared
        found = hosts.get(self.host, (self.host,) if self.is_loopback else ())
        return tuple(str(Endpoint(host, self.port)) for host in found)


def parse_address(text: str) -> UnixAddress | tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, `:PORT` (host empty: all addresses) or `unix:PATH`.

    Raises `UsageError`.
    """
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:").removeprefix("//")
        if path and "\x00" not in path:
            return UnixAddress(Path(path))
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > 65535:
        raise UsageError(
            f"{text[:120]!r} is not an address",
            hint="Write HOST:PORT such as 127.0.0.1:50051, [::1]:50051, :50051 for all "
            "addresses, or unix:/path/of/agent.sock.",
        )
    return (found[1] or found[2] or ""), int(found[3])


def endpoint_of(text: str) -> Endpoint:
    """A `HOST:PORT` that is in numbers already; raises `UsageError`."""
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        raise UsageError(f"{text[:120]!r} is a unix socket", hint="Name a HOST:PORT.")
    try:
        ipaddress.ip_address(address[0])
    except ValueError as error:
        raise UsageError(f"{text[:120]!r} is not an address in numbers") from error
    return Endpoint(*address)


def resolve_endpoints(text: str, resolve: _Resolve = socket.getaddrinfo) -> tuple[Endpoint, ...]:
    """Every numeric address that a `HOST:PORT` stands for; raises `UsageError`.

    Bind exactly these: a name may stand for something else a moment later.
    """
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        raise UsageError(
            f"{text[:120]!r} is a unix socket", hint="The agent has its own; name a HOST:PORT."
        )
    host, port = address
    if not host:
        return (Endpoint("::" if socket.has_dualstack_ipv6() else "0.0.0.0", port),)  # noqa: S104 - what was asked for
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"the host {host[:120]!r} is not known: {error}", hint="Give its IP address."
        ) from error
    endpoints = tuple(dict.fromkeys(Endpoint(str(item[4][0]), port) for item in found))
    # With port 0 each address would get a port of its own.
    return endpoints if port else endpoints[:1]


def check_exposure(
    endpoints: tuple[Endpoint, ...],
    *,
    has_tls: bool,
    has_client_ca: bool,
    has_tokens: bool,
    is_insecure: bool,
) -> None:
    """Raise `UsageError` when other hosts would reach what is not protected."""
    exposed = [str(endpoint) for endpoint in endpoints if not endpoint.is_loopback]
    if not exposed:
        return
    if not has_tls and not is_insecure:
        raise UsageError(
            f"other hosts reach {exposed[0]}, so it needs TLS",
            hint="Set api.tls_certificate_file and api.tls_key_file in agent.yaml; or listen on "
            "127.0.0.1; or use --insecure on a network where nobody else can listen.",
        )
    if not has_tokens and not has_client_ca:
        raise UsageError(
            f"nobody could use {exposed[0]}: there is no token yet",
            hint="Make one: smidr token create NAME --scope build. Or set api.client_ca_file.",
        )


@dataclass(frozen=True)
class Listening:
    """Where an agent listens besides its unix sockets."""

    grpc: tuple[Endpoint, ...] = ()
    http: tuple[Endpoint, ...] = ()
    tls: ServerTls | None = None
    """Used on all of them."""

    def warnings(self, now: datetime) -> tuple[str, ...]:
        """What the operator should see to soon."""
        problem = self.tls.problem(now) if self.tls is not None else ""
        return (problem,) if problem else ()


def plan_listening(
    settings: Api,
    now: datetime,
    *,
    has_tokens: bool,
    is_insecure: bool = False,
    address: str | None = None,
    http_address: str | None = None,
) -> Listening:
    """What the settings and the command line ask for; the latter wins.

    Raises `UsageError` for what would be open to strangers, `ConfigError` for TLS files.
    """
    grpc, http = address or settings.address, http_address or settings.http_address
    if not grpc and not http:
        return Listening()
    listening = Listening(
        grpc=resolve_endpoints(grpc) if grpc else (),
        http=resolve_endpoints(http) if http else (),
        tls=load_server_tls(settings, now),
    )
    check_exposure(
        (*listening.grpc, *listening.http),
        has_tls=listening.tls is not None,
        has_client_ca=settings.client_ca_file is not None,
        has_tokens=has_tokens,
        is_insecure=is_insecure,
    )
    return listening
