from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smidr_ci.api.health import Health
from smidr_ci.errors import EngineError
from smidr_ci.home import Home
from tests.fakes.clock import FakeClock
from tests.fakes.http_agent import QuietAgent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[QuietAgent]:
    made = QuietAgent(Home(tmp_path))
    yield made
    made.close()


def test_the_engine_is_asked_seldom(agent: QuietAgent) -> None:
    clock, asked = FakeClock(), list[int]()

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise EngineError("gone")

    health = Health(agent, agent.store, check, clock)
    assert [health.problems() for _ in range(3)] == [()] * 3
    assert len(asked) == 1
    clock.advance(5)
    assert health.problems() == ("the container engine does not answer",)
    clock.advance(5)
    assert health.problems() == ()


def test_an_engine_that_hangs_holds_one_caller_only(agent: QuietAgent) -> None:
    is_asked, may_go = threading.Event(), threading.Event()

    def check() -> None:
        is_asked.set()
        assert may_go.wait(60)

    health = Health(agent, agent.store, check, FakeClock())
    first = threading.Thread(target=health.problems)
    first.start()
    assert is_asked.wait(60)
    assert health.problems() == ("the agent has only just started",)
    may_go.set()
    first.join()
    assert health.problems() == ()
