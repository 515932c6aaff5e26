"""Ways between hosts to one hash-equivalence server: out to another's, and in to this one's."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from smidr_ci.builds.hashserv import HASH_SERVER_SOCKET, HashServerElsewhere, host_and_port
from smidr_ci.builds.host import Host
from smidr_ci.config.caches import HashServerDoor
from smidr_ci.sharing.relaying import (
    Relay,
    bound_tcp,
    bound_unix,
    connected_tcp,
    connected_unix,
)
from smidr_ci.trust import Trust

__all__ = ["HashRelays", "server_behind"]

_log = logging.getLogger(__name__)


class HashRelays:
    """Does nothing, in no thread, while the settings name no other host. Thread-safe."""

    def __init__(self, host: Callable[[], Host]) -> None:
        """`host` gives the newest settings."""
        self._host = host
        self._lock = threading.Lock()
        self._settings: object = None
        self._relays: list[Relay] = []
        self._problems: list[str] = []

    def look(self) -> None:
        """Go by the newest settings."""
        host = self._host()
        cache = host.agent.cache
        settings = (
            host.hash_server_elsewhere,
            cache.hash_server_doors if cache.hash_server else (),
        )
        with self._lock:
            if settings == self._settings:
                return
            self._end()
            self._settings = settings
            elsewhere, doors = settings
            for trust in Trust if elsewhere is not None else ():
                if elsewhere is not None and (address := elsewhere.address_for(trust)):
                    self._begin(f"{address[0]}:{address[1]}", self._way_out, elsewhere, trust)
            for door in doors:
                self._begin(door.address, self._way_in, door)

    def stop(self) -> None:
        """End them all."""
        with self._lock:
            self._end()

    @property
    def problems(self) -> tuple[str, ...]:
        """What the operator should see to."""
        with self._lock:
            return tuple(self._problems)

    def _begin(self, address: str, make: Callable[..., Relay], *arguments: object) -> None:
        try:
            relay = make(*arguments)
        except OSError as error:
            self._problems.append(f"No way to the hash server by {address}: {error}")
            _log.error("no way to the hash server by %s: %s", address, error)
            return
        relay.start()
        self._relays.append(relay)

    def _way_out(self, elsewhere: HashServerElsewhere, trust: Trust) -> Relay:
        folder = elsewhere.root / trust
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        user = self._host().user
        address = elsewhere.address_for(trust)
        if address is None:
            raise OSError(22, "it has no address")
        listener = bound_unix(folder, HASH_SERVER_SOCKET, (user.uid, user.gid))
        return Relay(listener, partial(connected_tcp, *address))

    def _way_in(self, door: HashServerDoor) -> Relay:
        host, port = host_and_port(door.address)
        listener = bound_tcp(host, port)
        may = "writing and reading" if door.writable else "reading"
        _log.info("the hash server is open for %s at %s", may, door.address)
        if door.writable and not _is_loopback(listener):
            self._problems.append(
                f"Whoever reaches {door.address} can add to the hash server, and so choose which "
                "sstate builds take: BitBake's protocol has neither login nor encryption. "
                "Let only hosts in that you trust, by a firewall or a tunnel."
            )

        return Relay(listener, lambda: connected_unix(server_behind(self._host(), door)))

    def _end(self) -> None:
        for relay in self._relays:
            relay.stop()
        self._relays, self._problems = [], []


def server_behind(host: Host, door: HashServerDoor) -> Path:
    """The socket of the server that a door leads to; raises `FileNotFoundError`."""
    # A second server on the same database takes no reports: it is strangers' too.
    trust = Trust.TRUSTED if door.writable else Trust.UNTRUSTED
    return host.hash_servers.socket_of(door.release, trust)


def _is_loopback(listener: socket.socket) -> bool:
    return str(listener.getsockname()[0]).startswith(("127.", "::1"))
