"""How often somebody may ask: a bucket of tries per key that fills up again with time."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from typing import Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import BusyError

__all__ = ["RateLimiter", "key_of_address"]

_MAX_KEYS: Final = 10_000
_IPV6_NETWORK: Final = 64


class RateLimiter:
    """Allows `per_minute` tries per key, `burst` of them at once; safe from several threads.

    It remembers the `max_keys` keys that were seen last, so its memory is bounded.
    """

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        *,
        clock: Clock | None = None,
        max_keys: int = _MAX_KEYS,
    ) -> None:
        self._per_second = per_minute / 60
        self._burst = max(1.0, per_minute if burst is None else burst)
        self._clock = clock or SystemClock()
        self._max_keys = max_keys
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, what: str = "requests") -> None:
        """Use up one try; raises `BusyError` with `retry_after_s` when there is none."""
        wait_s = self._wait_for_one(key)
        if wait_s > 0:
            error = BusyError(
                f"too many {what}: {self._per_second * 60:g} in a minute are allowed",
                hint=f"Try again in {math.ceil(wait_s)} s.",
            )
            error.retry_after_s = wait_s
            raise error

    def __len__(self) -> int:
        return len(self._levels)

    def _wait_for_one(self, key: str) -> float:
        with self._lock:
            now = self._clock.monotonic()
            level, since = self._levels.pop(key, (self._burst, now))
            level = min(self._burst, level + (now - since) * self._per_second)
            is_allowed = level >= 1
            self._levels[key] = (level - 1 if is_allowed else level, now)
            while len(self._levels) > self._max_keys:
                self._levels.popitem(last=False)
        return 0.0 if is_allowed else (1 - level) / self._per_second


def key_of_address(address: str) -> str:
    """Whom an IP address stands for: itself, or its /64 network, which one host may have whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_NETWORK), strict=False))
