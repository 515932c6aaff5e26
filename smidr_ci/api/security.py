"""Who is asking: the one place that turns a connection and its credentials into a `Caller`."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.rates import RateLimiter, key_of_address
from smidr_ci.api.secret import LOCAL_ID, id_of_secret
from smidr_ci.api.tokens import TokenStore
from smidr_ci.clock import Clock
from smidr_ci.config.api import Api
from smidr_ci.errors import UnauthenticatedError
from smidr_ci.text import printable

if TYPE_CHECKING:  # most agents have none
    from smidr_ci.forges.github.runners.door import Door

__all__ = ["Security", "Transport"]

_LOG: Final = logging.getLogger(__name__)
_FAILURES_PER_MINUTE: Final = 10
_MAX_TOKEN: Final = 256


@dataclass(frozen=True)
class Transport:
    """How a request came in."""

    peer_uid: int | None = None
    """The other end's user, for a unix socket (SO_PEERCRED); None for TCP."""
    peer_address: str = ""
    """The other end's IP address without port, for TCP."""
    is_door: bool = False
    """Over the unix socket that is for jobs of runners."""

    @classmethod
    def unix(cls, peer_uid: int, *, is_door: bool = False) -> Transport:
        """A unix socket, with the user that the kernel names."""
        return cls(peer_uid=peer_uid, is_door=is_door)

    @classmethod
    def tcp(cls, peer_address: str) -> Transport:
        """A TCP connection, with or without TLS."""
        return cls(peer_address=peer_address)

    @property
    def is_loopback(self) -> bool:
        """Whether the other end is on this host."""
        try:
            found = ipaddress.ip_address(self.peer_address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return (mapped or found).is_loopback


class Security:
    """Decides who calls; blocking (it may ask the database) and thread-safe.

    `uid` is the agent's own user; `local_token` is what `local_token.py` gives that user's
    programs. Unix sockets are for that user and root, who may do everything; but for the `door`,
    where jobs of runners come in. TCP needs a token, or with `api.client_ca_file` a certificate,
    which the TLS layer has checked already.
    """

    def __init__(
        self,
        tokens: TokenStore,
        settings: Api,
        uid: int,
        *,
        local_token: str | None = None,
        door: Door | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._tokens = tokens
        self._certificates = {
            name: Scope(word) for name, word in settings.client_certificates.items()
        }
        self._has_client_ca = settings.client_ca_file is not None
        self._uid = uid
        self._local_token = local_token
        self._door = door
        self._failures = RateLimiter(_FAILURES_PER_MINUTE, clock=clock)
        self._requests = RateLimiter(settings.requests_per_minute, clock=clock)

    def authenticate(
        self,
        token: str | None,
        *,
        transport: Transport,
        certificate: Sequence[str] | None = None,
    ) -> Caller:
        """The caller; call it once per request.

        `certificate` has the names in the client's verified certificate, the common name first
        (see `tls.names_of_certificate`). A token that is given must be good, whatever else is
        there. Raises `UnauthenticatedError`, or `BusyError` for who asks or fails too often.
        """
        if transport.peer_uid is not None:
            if transport.is_door:
                return self._job(transport.peer_uid)
            return self._local_user(transport.peer_uid)
        caller, why = self._known(token, transport, certificate)
        if caller is None:
            raise self._refusal(transport, why)
        self._requests.take(caller.name)
        return caller

    def _local_user(self, uid: int) -> Caller:
        if uid not in {self._uid, 0}:
            _LOG.warning("uid %d refused on the unix socket", uid)
            raise UnauthenticatedError(
                f"this agent belongs to uid {self._uid}, and you are uid {uid}",
                hint="Ask its operator for an address and a token.",
            )
        return Caller(f"uid {uid}", Scope.ADMIN, is_local=True)

    def _job(self, uid: int) -> Caller:
        if self._door is None or uid != self._door.uid:
            _LOG.warning("uid %d refused on the socket for runners' jobs", uid)
            raise UnauthenticatedError(f"this socket is not for uid {uid}")
        return Caller(f"a job, uid {uid}", Scope.BUILD, is_local=True, within=self._door.within)

    def _known(
        self, token: str | None, transport: Transport, certificate: Sequence[str] | None
    ) -> tuple[Caller | None, str]:
        if token is not None:
            return self._by_token(token, transport)
        if certificate and self._has_client_ca:
            return self._by_certificate(certificate), ""
        return None, "no token"

    def _by_token(self, token: str, transport: Transport) -> tuple[Caller | None, str]:
        if len(token) > _MAX_TOKEN:
            return None, "a token without the form of one"
        if id_of_secret(token) == LOCAL_ID:
            if not transport.is_loopback:
                return None, "the local token, from another host"
            expected = self._local_token or ""
            if expected and hmac.compare_digest(expected.encode(), token.encode()):
                return Caller(f"uid {self._uid}", Scope.ADMIN), ""
            return None, "the local token of another agent or an earlier one"
        info, why = self._tokens.examine(token)
        return (Caller(f"token {info.name}", info.scope) if info else None), why

    def _by_certificate(self, names: Sequence[str]) -> Caller:
        for name in names:
            if name in self._certificates:
                return Caller(f"certificate {name}", self._certificates[name])
        shown = printable(names[0])[:128] if names else "without a name"
        return Caller(f"certificate {shown}", Scope.BUILD)

    def _refusal(self, transport: Transport, why: str) -> UnauthenticatedError:
        """One message whatever was wrong; the reason is for the operator's log."""
        self._failures.take(key_of_address(transport.peer_address), "failed attempts")
        _LOG.warning("refused %s: %s", printable(transport.peer_address)[:64], why)
        return UnauthenticatedError(
            "a valid token is needed",
            hint="Have the operator make one with `smidr token create`, and give it in "
            "SMIDR_TOKEN or with --token-file.",
        )
