"""The token by which an agent knows programs of its own user that come over TCP.

It lies in a file that only that user can read, with the addresses where the agent listens: a
client sends it nowhere else, and only while an agent holds its lock. So nobody who listens at the
agent's port in its absence gets to see it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from smidr_ci.api.secret import LOCAL_ID, id_of_secret, new_secret
from smidr_ci.errors import HostError
from smidr_ci.files import as_host_error, open_untrusted, write_atomic
from smidr_ci.home import Home
from smidr_ci.locks import is_locked

__all__ = [
    "AGENT_LOCK",
    "make_local_token",
    "publish_local_token",
    "read_local_token",
    "withdraw_local_token",
]

AGENT_LOCK: Final = "agent.lock"
"""The file in `Home.locks` whose lock a running agent holds."""
_MAX_BYTES: Final = 4096


def make_local_token() -> str:
    """A fresh one, for an agent that starts."""
    return new_secret(LOCAL_ID)


def publish_local_token(home: Home, token: str, addresses: Iterable[str]) -> None:
    """Write it down for this user's clients, mode 0600; raises `HostError`.

    `addresses` are the loopback addresses where the agent listens, as `HOST:PORT` in numbers;
    see `Endpoint.local_addresses`.
    """
    lines = [token, *addresses]
    try:
        write_atomic(home.local_token, "".join(f"{line}\n" for line in lines), mode=0o600)
    except OSError as error:
        raise as_host_error(error, "can't write the local token", home.local_token) from error


def withdraw_local_token(home: Home) -> None:
    """Remove it, when the agent ends."""
    home.local_token.unlink(missing_ok=True)


def read_local_token(home: Home, address: str) -> str | None:
    """What to send to the agent at `address`; None when it is not ours.

    `address` is `HOST:PORT`, in numbers or `localhost`.

    Raises `HostError` when the file could have been written by somebody else.
    """
    try:
        if not is_locked(home.locks / AGENT_LOCK):
            return None
        with open_untrusted(home.local_token) as file:
            info = os.fstat(file.fileno())
            lines = file.read(_MAX_BYTES).decode("ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise as_host_error(error, "can't read the local token", home.local_token) from error
    if stat.S_IMODE(info.st_mode) & 0o077 or info.st_uid not in {os.getuid(), 0}:
        raise HostError(
            "the local token is open to other users",
            where=str(home.local_token),
            hint="Restart the agent: it makes a new one that nobody has seen.",
        )
    token, known = "".join(lines[:1]), lines[1:]
    host, _, port = address.rpartition(":")
    meant = {f"127.0.0.1:{port}", f"[::1]:{port}"} if host == "localhost" else {address}
    return token if id_of_secret(token) == LOCAL_ID and meant.intersection(known) else None
