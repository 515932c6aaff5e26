"""GitHub's rate limits: what they forbid for now, and the distance between writes.

Facts: docs.github.com, "Rate limits for the REST API" and "Best practices for using the REST API".
"""

from __future__ import annotations

import email.utils
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.forges.github.errors import RateLimitedError
from smidr_ci.forges.github.exchange import Reply

__all__ = ["Pause", "RateGate"]

Pause = Callable[[float], bool]
"""Waits so many seconds; True when to stop waiting and trying."""

_EVERYTHING: Final = "*"
_SECONDARY_S: Final = 60.0
_LONGEST_S: Final = 3700.0
"""A primary limit is over after an hour at most."""
_BETWEEN_WRITES_S: Final = 1.0


@dataclass
class _Closed:
    until: float = 0.0
    why: str = ""
    repeated: int = 0
    """How often the secondary limit struck without a good answer in between."""


class RateGate:
    """Shared by all calls of a process; thread-safe. `identity` is whose limit it is."""

    def __init__(self, clock: Clock, pause: Pause) -> None:
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._closed: dict[tuple[str, str], _Closed] = {}
        self._writes: dict[str, threading.Lock] = {}
        self._written: dict[str, float] = {}

    def check(self, identity: str, resource: str) -> None:
        """Raise `RateLimitedError` while GitHub wants no such call."""
        now = self._clock.monotonic()
        with self._lock:
            for key in ((identity, resource), (identity, _EVERYTHING)):
                closed = self._closed.get(key)
                if closed is not None and closed.until > now:
                    raise RateLimitedError(closed.why, after_s=closed.until - now)

    def heard(self, identity: str, resource: str, reply: Reply) -> RateLimitedError | None:
        """Learn from an answer; the error when GitHub refused the call for a limit."""
        resource = reply.headers.get("X-RateLimit-Resource") or resource
        if reply.status not in {403, 429}:
            self._forgive(identity)
            if reply.headers.get("X-RateLimit-Remaining") == "0":
                self._close(identity, resource, self._until_reset(reply), "its hourly limit")
            return None
        asked = _seconds(reply.headers.get("Retry-After", ""))
        if asked is not None:
            return self._close(identity, _EVERYTHING, asked, "for a while")
        if reply.headers.get("X-RateLimit-Remaining") == "0":
            wait = self._until_reset(reply)
            return self._close(identity, resource, wait, "its hourly limit")
        is_secondary = reply.status == 429 or any(
            word in reply.message.lower() for word in ("rate limit", "abuse")
        )
        return self._secondary(identity) if is_secondary else None

    @contextmanager
    def writing(self, identity: str) -> Iterator[None]:
        """One write at a time, and a second between two."""
        with self._lock:
            lock = self._writes.setdefault(identity, threading.Lock())
        with lock:
            last = self._written.get(identity)
            wait = 0.0 if last is None else last + _BETWEEN_WRITES_S - self._clock.monotonic()
            if wait > 0 and self._pause(wait):
                raise RateLimitedError("this host stops", after_s=_BETWEEN_WRITES_S)
            try:
                yield
            finally:
                self._written[identity] = self._clock.monotonic()

    def _until_reset(self, reply: Reply) -> float:
        reset = _seconds(reply.headers.get("X-RateLimit-Reset", ""))
        if reset is None:
            return _SECONDARY_S
        # By the server's clock, since it is the server's time; ours may be wrong.
        now = _date(reply.headers.get("Date", "")) or self._clock.now().timestamp()
        return max(reset - now, 1.0)

    def _close(self, identity: str, resource: str, wait: float, why: str) -> RateLimitedError:
        wait = min(max(wait, 1.0), _LONGEST_S)
        text = f"GitHub takes no more calls of this host: {why}"
        with self._lock:
            closed = self._closed.setdefault((identity, resource), _Closed())
            closed.until = max(closed.until, self._clock.monotonic() + wait)
            closed.why = text
        return RateLimitedError(text, after_s=wait)

    def _secondary(self, identity: str) -> RateLimitedError:
        with self._lock:
            closed = self._closed.setdefault((identity, _EVERYTHING), _Closed())
            wait = _SECONDARY_S * 2.0 ** min(closed.repeated, 6)
            closed.repeated += 1
        return self._close(identity, _EVERYTHING, wait, "its secondary limit")

    def _forgive(self, identity: str) -> None:
        with self._lock:
            closed = self._closed.get((identity, _EVERYTHING))
            if closed is not None and closed.until <= self._clock.monotonic():
                closed.repeated = 0


def _seconds(text: str) -> float | None:
    text = text.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
