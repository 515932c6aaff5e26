"""When chores are done, and what a failing one does to the others."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from smidr_ci.agent.housekeeping import Housekeeper
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.errors import HostError
from tests.fakes.clock import FakeClock

RECORD = BuildRecord("acme-00000001", "acme", "p", ("t",), BuildState.COMPLETED, datetime.now(UTC))


class Rounds:
    """Counts a chore's calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self._error = error
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        if self._error is not None:
            raise self._error

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, timeout=30)


@pytest.mark.parametrize("error", [HostError("the disk is gone"), ValueError("a fault of ours")])
def test_a_chore_that_fails_keeps_no_other_from_being_done(error: Exception) -> None:
    failing, other = Rounds(error), Rounds()
    keeper = Housekeeper([failing, other], first_s=0, after_build_s=0, daily_s=3600)
    keeper.start()
    other.wait_for(1)
    keeper.build_ended(RECORD)
    other.wait_for(2)
    keeper.stop()
    assert failing.count == 2


def test_chores_come_back_every_day() -> None:
    chore = Rounds()
    keeper = Housekeeper([chore], first_s=0, daily_s=0.01)
    keeper.start()
    chore.wait_for(3)
    keeper.stop()


def test_builds_that_end_together_are_followed_by_one_round() -> None:
    entered, may_go = threading.Event(), threading.Event()
    rounds = Rounds()

    def slow() -> None:
        rounds()
        entered.set()
        assert may_go.wait(30)

    keeper = Housekeeper([slow], first_s=0, after_build_s=0, daily_s=3600)
    keeper.start()
    assert entered.wait(30)
    for _ in range(5):
        keeper.build_ended(RECORD)
    may_go.set()
    rounds.wait_for(2)
    keeper.stop()
    assert rounds.count == 2


def test_a_host_that_is_short_of_room_is_cleaned_once_in_ten_minutes() -> None:
    clock, chore = FakeClock(), Rounds()
    keeper = Housekeeper([chore], first_s=3600, after_build_s=0, daily_s=3600, clock=clock)
    keeper.start()
    keeper.host_is_short()
    chore.wait_for(1)
    keeper.host_is_short()
    clock.advance(601)
    keeper.host_is_short()
    chore.wait_for(2)
    keeper.stop()
    assert chore.count == 2
