"""Sends webhooks as GitHub does: signed over the raw bytes."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import Any
from urllib.parse import urlencode

__all__ = ["HOOK_SECRET", "hook", "signature"]

HOOK_SECRET = "It's a Secret to Everybody"


def signature(body: bytes, secret: str = HOOK_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def hook(
    event: str,
    payload: dict[str, Any],
    *,
    guid: str = "",
    secret: str = HOOK_SECRET,
    is_form: bool = False,
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a delivery."""
    text = json.dumps(payload)
    body = urlencode({"payload": text}).encode() if is_form else text.encode()
    kind = "application/x-www-form-urlencoded" if is_form else "application/json"
    headers = {
        "Content-Type": kind,
        "User-Agent": "GitHub-Hookshot/abc",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": guid or str(uuid.uuid4()),
        "X-GitHub-Hook-ID": "1",
        "X-Hub-Signature-256": signature(body, secret),
    }
    return headers, body
