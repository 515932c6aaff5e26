"""GitHub's REST API for this host: authorised, conditional where it can be, errors told.

Not PyGithub: it repeats a POST after a 5xx (a second check run) and a PATCH never, can't confine
a token to one repository, knows no `If-None-Match` for lists, and has neither the App's webhook
deliveries nor the runner calls of repositories. What is left of it is less than this file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import Credentials, Scope
from smidr_ci.forges.github.exchange import Call, Reply
from smidr_ci.forges.github.sender import Sender

__all__ = ["GitHubClient"]

_KEPT_ANSWERS: Final = 64
_KEPT_BYTES: Final = 512 * 1024
_MOST_PAGES: Final = 30


@dataclass(frozen=True)
class _Answer:
    etag: str
    reply: Reply


class GitHubClient:
    """Calls with the right token; thread-safe.

    All methods raise `ForgeError` for an answer that is no success, with its status,
    `RateLimitedError` while GitHub takes no calls, and `ForgeUnreachableError` without an answer.
    """

    def __init__(self, sender: Sender, credentials: Credentials) -> None:
        self.sender = sender
        self.credentials = credentials
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    def get(
        self,
        path: str,
        scope: Scope,
        *,
        action: str,
        params: Mapping[str, str | int] | None = None,
    ) -> Reply:
        """What is there; `is_unchanged` when GitHub says that nothing changed since the last call.

        Such an answer counts for no rate limit. `action` ends the sentence "can't ...".
        """
        call = Call("GET", path, params or {})
        key = f"{scope} {path}?{urlencode(call.params)}"
        with self._lock:
            known = self._answers.get(key)
        extra = {"If-None-Match": known.etag} if known else {}
        reply = self._send(call, scope, extra)
        if reply.status == 304 and known is not None:
            return replace(known.reply, is_unchanged=True)
        if not reply.is_success:
            raise reply.failure(action)
        self._keep(key, reply)
        return reply

    def pages(
        self,
        path: str,
        scope: Scope,
        *,
        action: str,
        params: Mapping[str, str | int] | None = None,
        items: str = "",
    ) -> Iterator[dict[str, Any]]:
        """The objects of a list, page after page; `items` is the key that holds them, if any."""
        reply = self.get(path, scope, action=action, params={"per_page": 100, **(params or {})})
        for _ in range(_MOST_PAGES):
            found = reply.object().get(items) if items else reply.json()
            if not isinstance(found, list):
                raise ForgeError(f"can't {action}: the answer has no list", where=reply.url)
            yield from (item for item in found if isinstance(item, dict))
            following = reply.next_page
            if not following.startswith(f"{self.sender.api}/"):
                return
            reply = self.get(following, scope, action=action)

    def send(self, call: Call, scope: Scope, *, action: str) -> Reply:
        """A write; `call.is_repeatable` says whether a lost answer is asked for again."""
        reply = self._send(call, scope)
        if not reply.is_success:
            raise reply.failure(action)
        return reply

    def _send(self, call: Call, scope: Scope, extra: Mapping[str, str] | None = None) -> Reply:
        authorization = self.credentials.authorize(scope)
        reply = self.sender.send(call, authorization, extra)
        if reply.status == 401 and self.credentials.refused(scope, authorization):
            # Once: a token that was just made and is refused too is the operator's matter.
            reply = self.sender.send(call, self.credentials.authorize(scope), extra)
        return reply

    def _keep(self, key: str, reply: Reply) -> None:
        etag = reply.headers.get("ETag", "")
        with self._lock:
            self._answers.pop(key, None)
            if etag and len(reply.body) <= _KEPT_BYTES:
                self._answers[key] = _Answer(etag, reply)
            while len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
