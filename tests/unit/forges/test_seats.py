"""Room for jobs, shared by registrations."""

from __future__ import annotations

from smidr_ci.forges.gitlab.pace import Pace
from smidr_ci.forges.seats import Seats
from tests.fakes.clock import FakeClock


class Host:
    def __init__(self, free: int) -> None:
        self.free, self.expected, self.clock = free, 0, FakeClock()
        self.seats = Seats(self.refusal, lambda: self.expected, self.clock)

    def refusal(self, before: int) -> str | None:
        return None if before < self.free else "all slots are taken"


def test_a_seat_is_taken_once_and_free_again_when_it_is_given_back() -> None:
    seats = Host(1).seats
    assert seats.take("a") is None
    assert seats.take("b") == "another registration asks for the only free place"
    seats.give_back("a")
    assert seats.take("b") is None


def test_who_holds_no_seat_gives_none_back() -> None:
    seats = Host(1).seats
    assert seats.take("a") is None
    seats.give_back("b")
    assert seats.take("b") is not None


def test_jobs_without_a_build_yet_count() -> None:
    host = Host(2)
    host.expected = 2
    assert host.seats.take("a") == "all slots are taken"
    host.expected = 1
    assert host.seats.take("a") is None


def test_seats_are_scarce_only_where_registrations_are_more() -> None:
    host, found = Host(1), []
    for name, seconds in (("a", 0.0), ("b", 0.0), ("a", 61.0)):
        host.clock.advance(seconds)
        host.seats.take(name)
        found.append(host.seats.is_scarce)
    assert found == [False, True, False]
    roomy = Host(2)
    roomy.seats.take("a")
    roomy.seats.take("b")
    assert not roomy.seats.is_scarce


def test_more_requests_go_out_only_while_jobs_come() -> None:
    pace = Pace(3)
    assert [pace.may_ask(number) for number in range(3)] == [True, False, False]
    for _ in range(5):
        pace.heard(is_job=True)
    assert [pace.may_ask(number) for number in range(4)] == [True, True, True, False]
    pace.heard(is_job=False)
    assert [pace.may_ask(number) for number in range(3)] == [True, False, False]


def test_a_concurrency_that_makes_no_sense_is_one() -> None:
    assert [Pace(value).most for value in (0, -1, "7", None, True, 10**9)] == [1, 1, 1, 1, 1, 100]
