"""Takes webhooks: the signature first, over the raw bytes; then a hint into the outbox.

It knows no web framework. The outbox keeps each delivery once, over restarts too, and repeats what
could not be seen to. Facts: docs.github.com, "Validating webhook deliveries".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConfigError, SmidrError
from smidr_ci.forges.deliveries import Outgoing
from smidr_ci.forges.github.events import Hint, hint_of
from smidr_ci.forges.github.site import Site

__all__ = ["HOOK", "MAX_BODY_BYTES", "Hook", "Receipt", "Webhooks", "put_hint"]

log = logging.getLogger(__name__)

HOOK: Final = "hook"
"""Kind of a delivery whose payload is a `Hint`."""
MAX_BODY_BYTES: Final = 25 * 1024 * 1024
"""GitHub sends nothing bigger."""

_SIGNATURE: Final = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)
_GUID: Final = re.compile(r"[0-9A-Za-z-]{8,64}", re.ASCII)
_EVENT: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_MOST_SECRETS: Final = 5


@dataclass(frozen=True)
class Hook:
    """Whose webhooks are taken, and by which secret they are known."""

    prefix: str
    """Of receivers, such as `github:lab:`."""
    site: Site
    secret_file: Path
    """One secret per line, so that a new one can be set while the old one is still in use."""


@dataclass(frozen=True)
class Receipt:
    """What whoever sent it is told: an HTTP status and a word."""

    status: int
    text: str


class Webhooks:
    """Takes what comes, from any thread; returns as soon as it is on disk."""

    def __init__(self, hooks: Callable[[], Iterable[Hook]], outgoing: Outgoing) -> None:
        """`hooks` is asked each time, so that registrations may come and go."""
        self._hooks = hooks
        self._outgoing = outgoing

    def receive(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Names of headers in small letters. Nothing of the body is read before it is known."""
        if len(body) > MAX_BODY_BYTES:
            return Receipt(413, "too big")
        hook = self._hook_of(headers.get("x-hub-signature-256", ""), body)
        if hook is None:
            return Receipt(401, "no valid signature")
        event = headers.get("x-github-event", "")
        guid = headers.get("x-github-delivery", "")
        if not _EVENT.fullmatch(event) or not _GUID.fullmatch(guid):
            return Receipt(400, "no event or delivery id")
        if event == "ping":
            return Receipt(200, "pong")
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        return self._read(hook, event, guid, media, body)

    def _read(self, hook: Hook, event: str, guid: str, media: str, body: bytes) -> Receipt:
        try:
            payload = _payload(media, body)
        except (ValueError, RecursionError):
            return Receipt(400, "the payload is no JSON")
        if payload is None:
            return Receipt(415, "choose application/json as the content type")
        return self._queue(hook, hint_of(event, guid, payload))

    def _queue(self, hook: Hook, hint: Hint | None) -> Receipt:
        if hint is None or not hook.site.covers(hint.repository):
            return Receipt(202, "ignored")
        try:
            is_new = put_hint(self._outgoing, hook.prefix, hint)
        except SmidrError as error:
            log.warning("can't keep a webhook: %s", error)
            return Receipt(503, "can't be kept now")
        return Receipt(202, "queued") if is_new else Receipt(200, "known")

    def _hook_of(self, signature: str, body: bytes) -> Hook | None:
        match = _SIGNATURE.fullmatch(signature)
        if match is None:
            return None
        found = None
        for hook in self._hooks():
            for secret in _secrets(hook.secret_file):
                made = hmac.new(secret, body, hashlib.sha256).hexdigest()
                if hmac.compare_digest(made, match[1]):
                    found = found or hook
        return found


def put_hint(outgoing: Outgoing, prefix: str, hint: Hint) -> bool:
    """Have a hint seen to, once per delivery id; whether it is new. Raises `SmidrError`."""
    receiver = f"{prefix}hook:{hint.repository}:{hint.event}"
    return outgoing.put(receiver, hint.guid, HOOK, hint.as_plain())


def _secrets(path: Path) -> list[bytes]:
    try:
        lines = read_secret(path).splitlines()
    except ConfigError as error:
        log.error("webhooks can't be checked: %s", error)  # noqa: TRY400 - it says all there is
        return []
    # An empty secret would let everybody in.
    return [line.encode() for line in lines if line.strip()][:_MOST_SECRETS]


def _payload(media: str, body: bytes) -> Any:  # noqa: ANN401 - whatever was signed
    """None for a content type that GitHub does not send; raises `ValueError`."""
    if media == "application/json":
        return json.loads(body)
    if media == "application/x-www-form-urlencoded":
        fields = parse_qs(body.decode("utf-8"), strict_parsing=True, max_num_fields=8)
        return json.loads(fields.get("payload", [""])[0])
    return None
