"""Keeps pages of other sites out, and names that were pointed at this host (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from smidr_ci.api.http.connection import Listener
from smidr_ci.errors import ForbiddenError, TooLargeError

__all__ = ["check_origin", "loopback_hosts"]

_MAX_URL: Final = 8192


def check_origin(scope: Scope) -> None:
    """Raise `ForbiddenError` for a request of another site's page, or by another host's name."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > _MAX_URL:
        raise TooLargeError("the address of the request is too long")
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    listener: Listener = scope["state"]["listener"]
    if listener.hosts is not None and _name_of(host) not in listener.hosts:
        raise ForbiddenError(
            "the Host header names another host", hint="Use the address that the agent shows."
        )
    origin = headers.get("origin")
    own = None if listener.is_unix else f"{scope['scheme']}://{host}"
    is_foreign = headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
    if is_foreign or (origin is not None and origin != own):
        raise ForbiddenError("pages of other sites may not use the agent")


def _name_of(host: str) -> str:
    name, separator, port = host.rpartition(":")
    has_port = bool(separator) and port.isdigit()
    return (name if has_port else host).strip("[]").lower().rstrip(".")


def loopback_hosts(names: Iterable[str] = ()) -> frozenset[str]:
    """What the Host header may say at a loopback address."""
    return frozenset({"localhost", "127.0.0.1", "::1", *(name.lower() for name in names)})
