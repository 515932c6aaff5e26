"""Sends calls with GitHub's headers, through the rate gate, and repeats what may be repeated."""

from __future__ import annotations

import json
import logging
import platform
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from smidr_ci import __version__
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.errors import ForgeUnreachableError
from smidr_ci.forges.github.exchange import Call, Reply
from smidr_ci.forges.github.rates import Pause, RateGate
from smidr_ci.forges.github.transport import Transport

__all__ = ["API_VERSION", "USER_AGENT", "Authorization", "OnCall", "Sender"]

log = logging.getLogger(__name__)

API_VERSION: Final = "2022-11-28"
USER_AGENT: Final = f"smidr-ci/{__version__} (python {platform.python_version()})"

OnCall = Callable[[str, str], None]
"""Hears of each exchange: name of the operation, status code or `unreachable`."""

_REPOSITORY: Final = re.compile(r"^.*/repos/[^/]+/[^/]+/?")
_KIND: Final = re.compile(
    r"/?(actions|app|branches|check-runs|check-suites|collaborators|commits|"
    r"installation|orgs|pulls|rate_limit|statuses)\b"
)
_ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 1.0
_PASSING: Final = frozenset({408, 500, 502, 503, 504})


@dataclass(frozen=True)
class Authorization:
    """Who calls: the header's value, and whose rate limit counts it."""

    header: str = field(repr=False)
    identity: str


class Sender:
    """Calls of one API; thread-safe. `pause` waits between tries and ends them when it is True."""

    def __init__(
        self,
        api: str,
        transport: Transport,
        *,
        clock: Clock | None = None,
        pause: Pause | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._on_call = on_call or (lambda _operation, _outcome: None)
        self.api = api
        self.clock = clock or SystemClock()
        self._transport = transport
        self._ended = threading.Event()
        self._pause = pause or self._ended.wait
        self.gate = RateGate(self.clock, self._pause)

    def end(self) -> None:
        """End waits and calls, now and from now on."""
        self._ended.set()
        self._transport.end()

    def send(
        self, call: Call, authorization: Authorization, extra: Mapping[str, str] | None = None
    ) -> Reply:
        """The last answer; raises `ForgeUnreachableError` and `RateLimitedError`.

        What is not repeatable is sent once: whoever calls must look whether a lost one arrived.
        """
        attempts = _ATTEMPTS if call.is_repeatable else 1
        wait = _FIRST_WAIT_S
        for attempt in range(1, attempts + 1):
            is_last = attempt == attempts
            try:
                reply = self._once(call, authorization, extra or {})
            except ForgeUnreachableError as error:
                if is_last or error.is_misconfigured:
                    raise
                log.info("%s %s: %s", call.method, call.path, error.message)
            else:
                if reply.status not in _PASSING or is_last:
                    return reply
                log.info("%s %s: GitHub answers %d", call.method, call.path, reply.status)
            # Spread: many hosts would come back at the same moment.
            if self._pause(wait * random.uniform(0.75, 1.25)):  # noqa: S311
                raise ForgeUnreachableError("stopped", where=self.api)
            wait *= 2
        raise AssertionError("unreachable")

    def _once(self, call: Call, authorization: Authorization, extra: Mapping[str, str]) -> Reply:
        if self._ended.is_set():
            raise ForgeUnreachableError("stopped", where=self.api, is_misconfigured=True)
        identity = authorization.identity
        self.gate.check(identity, call.resource)
        if not call.is_write:
            reply = self._exchange(call, authorization, extra)
        else:
            with self.gate.writing(identity):
                self.gate.check(identity, call.resource)  # it may have closed in the meantime
                reply = self._exchange(call, authorization, extra)
        limited = self.gate.heard(identity, call.resource, reply)
        if limited is not None:
            raise limited
        return reply

    def _exchange(
        self, call: Call, authorization: Authorization, extra: Mapping[str, str]
    ) -> Reply:
        url = call.path if call.path.startswith(f"{self.api}/") else self.api + call.path
        if call.params:
            url = f"{url}?{urlencode(call.params)}"
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": API_VERSION,
            "User-Agent": USER_AGENT,
            "Authorization": authorization.header,
            **extra,
        }
        body = None
        if call.json is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(call.json, ensure_ascii=False).encode("utf-8", "replace")
        try:
            reply = self._transport.exchange(call.method, url, headers, body)
        except ForgeUnreachableError:
            self._on_call(_operation(call), "unreachable")
            raise
        self._on_call(_operation(call), str(reply.status))
        return reply


def _operation(call: Call) -> str:
    """Such as `post-check-runs`; nothing in it is a stranger's choice."""
    path = _REPOSITORY.sub("/", call.path)
    match = _KIND.match(path)
    return f"{call.method.lower()}-{match[1] if match else 'repository'}"
