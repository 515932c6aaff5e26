"""A client's connection to an agent: unix socket, TCP, TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from pathlib import Path
from typing import Final

import grpc

from smidr_ci.api.sockets import short_path
from smidr_ci.api.tls import ClientTls
from smidr_ci.errors import UsageError

__all__ = ["Connection"]

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A reader that pauses has so much at most waiting; gRPC's own guess goes to 30 MB a stream.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    # Notice a dead agent in the middle of a stream.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Connection:
    """A channel to an agent; raises `UsageError` for an address that is none.

    `unix:/path` is a socket, `grpcs://host:port` means TLS and `grpc://host:port` in the clear,
    token and all. A bare `host:port` means TLS, but for this host's own addresses.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: ClientTls | None = None
    ) -> None:
        self.address = address
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._resources = contextlib.ExitStack()
        scheme, rest = _split(address)
        if scheme == "unix":
            target = f"unix:{self._resources.enter_context(short_path(Path(rest)))}"
            self.channel = grpc.insecure_channel(target, _OPTIONS)
        elif tls is not None or scheme == "grpcs" or (not scheme and not _is_loopback(rest)):
            self.channel = grpc.secure_channel(rest, _credentials(tls), _OPTIONS)
        else:
            self.channel = grpc.insecure_channel(rest, _OPTIONS)

    def close(self) -> None:
        """End calls and connection."""
        self.channel.close()
        self._resources.close()


def _split(address: str) -> tuple[str, str]:
    """Scheme, empty when there is none, and what it is about."""
    scheme, mark, rest = address.partition(":")
    if mark and scheme == "unix" and rest.removeprefix("//").startswith("/"):
        return scheme, rest.removeprefix("//")
    if mark and scheme in {"grpc", "grpcs"} and rest.startswith("//"):
        address = rest.removeprefix("//").rstrip("/")
    else:
        scheme = ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise UsageError(
            f"{address[:200]!r} is no address of an agent",
            hint="Addresses look like build-host:50051, grpcs://build-host:50051 or "
            "unix:/home/me/.smidr/grpc.sock.",
        )
    return scheme, address


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(tls: ClientTls | None) -> grpc.ChannelCredentials:
    if tls is None:
        return grpc.ssl_channel_credentials(_authorities())
    return grpc.ssl_channel_credentials(tls.ca or _authorities(), tls.key, tls.chain)


def _authorities() -> bytes | None:
    """Those that this host trusts; gRPC would take its own list."""
    for name in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if name and Path(name).is_file():
            return Path(name).read_bytes()
    return None
