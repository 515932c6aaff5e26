"""Rates: who asks too often waits, others don't, and memory stays bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from smidr_ci.api.rates import RateLimiter, key_of_address
from smidr_ci.errors import BusyError
from tests.fakes.clock import FakeClock


def taken(limiter: RateLimiter, key: str, tries: int) -> int:
    done = 0
    with suppress(BusyError):
        for _ in range(tries):
            limiter.take(key)
            done += 1
    return done


def test_a_burst_passes_and_then_one_at_a_time() -> None:
    clock = FakeClock()
    limiter = RateLimiter(60, burst=5, clock=clock)
    assert taken(limiter, "a", 10) == 5
    clock.advance(0.9)
    assert taken(limiter, "a", 10) == 0
    clock.advance(0.1)
    assert taken(limiter, "a", 10) == 1
    clock.advance(3600)
    assert taken(limiter, "a", 10) == 5


def test_the_refusal_says_when_to_ask_again() -> None:
    clock = FakeClock()
    limiter = RateLimiter(6, burst=1, clock=clock)
    limiter.take("a")
    clock.advance(4)
    with pytest.raises(BusyError, match="too many requests: 6 in a minute") as caught:
        limiter.take("a")
    assert caught.value.retry_after_s == pytest.approx(6)
    assert caught.value.hint == "Try again in 6 s."
    clock.advance(caught.value.retry_after_s or 0)
    limiter.take("a")


def test_one_who_is_refused_is_not_set_back_by_trying() -> None:
    clock = FakeClock()
    limiter = RateLimiter(60, burst=1, clock=clock)
    limiter.take("a")
    for _ in range(10):
        clock.advance(0.09)
        assert taken(limiter, "a", 1) == 0
    clock.advance(0.11)
    limiter.take("a")


def test_one_keys_greed_is_no_others_loss() -> None:
    limiter = RateLimiter(60, burst=1, clock=FakeClock())
    assert taken(limiter, "a", 100) == 1
    assert taken(limiter, "b", 100) == 1


def test_memory_is_bounded_and_who_was_seen_last_is_kept() -> None:
    limiter = RateLimiter(1, burst=1, clock=FakeClock(), max_keys=100)
    limiter.take("greedy")
    for number in range(10_000):
        limiter.take(f"address {number}")
        assert taken(limiter, "greedy", 1) == 0
    assert len(limiter) == 100


def test_many_threads_get_no_more_than_one_would() -> None:
    limiter = RateLimiter(1, burst=50, clock=FakeClock())
    start = threading.Barrier(8)

    def work() -> int:
        start.wait(timeout=30)
        return taken(limiter, "a", 50)

    with ThreadPoolExecutor(8) as pool:
        assert sum(future.result() for future in [pool.submit(work) for _ in range(8)]) == 50


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_addresses_of_one_host_share_a_key(address: str, key: str) -> None:
    assert key_of_address(address) == key
