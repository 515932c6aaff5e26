"""One HTTP exchange as data: what is asked, what is answered, how long it may take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from requests.structures import CaseInsensitiveDict

from smidr_ci.forges.errors import ForgeError
from smidr_ci.text import printable

__all__ = ["Call", "Limits", "OnCall", "Pause", "Reply", "api_url"]

Pause = Callable[[float], bool]
"""Waits so many seconds; True when to stop waiting and trying."""
OnCall = Callable[[str, str], None]
"""Called after each HTTP exchange: name of the operation, status code or `unreachable`."""

_XML_MESSAGE: Final = re.compile(r"<(Code|Message)>([^<]{1,300})</\1>")


@dataclass(frozen=True)
class Limits:
    """Seconds until a call is given up."""

    connect_s: float = 30.0
    headers_s: float = 600.0
    """Longer than any long poll of the server."""
    whole_s: float = 3600.0


@dataclass(frozen=True)
class Call:
    """One request; its body is bytes, so that it can be sent again from the start."""

    operation: str
    """Name in metrics and logs."""
    method: str
    path: str
    """Below `/api/v4/`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One answer, whole."""

    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes
    correlation_id: str
    url: str
    attempts: int = 1

    def json(self) -> Any:  # noqa: ANN401 - whatever the server sent
        """The body of a success; raises `ForgeError` when it is not JSON."""
        media = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            if media != "application/json":
                raise ValueError(f"its type is {media or 'not given'}")
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ForgeError(
                f"the answer is not JSON: {printable(str(error))[:200]}",
                where=self.url,
                hint="The URL must be that of the GitLab instance; is there a login page or proxy?",
                status=self.status,
            ) from error

    @property
    def message(self) -> str:
        """What the server says about an error, in one line; empty when it says nothing."""
        text = self.body[:100_000].decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            parts = [value for _, value in _XML_MESSAGE.findall(text)]
            return printable(": ".join(parts))[:500]
        if isinstance(found, dict):
            found = found.get("message") or found.get("error") or ""
        return printable(_flat(found))[:500]


def _flat(message: object) -> str:
    if isinstance(message, dict):
        return "; ".join(f"{key}: {_flat(value)}" for key, value in message.items())
    if isinstance(message, list):
        return ", ".join(_flat(item) for item in message)
    return str(message)


def api_url(url: str) -> str:
    """`<url>/api/v4/` of an instance's address; raises `ForgeError` for what is none."""
    try:
        parts = urlsplit(url.strip())
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_good = urlsplit(""), False
    if not is_good or parts.username is not None or parts.query or parts.fragment:
        raise ForgeError(
            f"{printable(url)[:200]!r} is not the address of a GitLab instance"
            if parts.username is None
            else "the address of the GitLab instance must not hold a user name or password",
            hint="Write it as https://gitlab.example.com, with a path when it lies below one.",
        )
    base = url.strip().rstrip("/")
    return base.removesuffix("/ci").rstrip("/") + "/api/v4/"
