"""Asking for jobs: conformance cases 13 to 26, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from smidr_ci.forges.gitlab.health import PollHealth
from smidr_ci.forges.gitlab.runner import GitLabRunner
from smidr_ci.forges.registration import Registrations
from smidr_ci.forges.seats import Seats
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import Fault
from tests.fakes.gitlab.site import TOKEN, Site, open_site, payload


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def site(tmp_path: Path, clock: FakeClock) -> Iterator[Site]:
    with open_site(tmp_path, clock=clock) as site:
        yield site


def poll(
    site: Site,
    clock: FakeClock,
    times: int,
    at_round: Callable[[int], None] = lambda _number: None,
    interval_s: float = 3.0,
) -> list[float]:
    """Poll so many rounds in simulated time; the waits between them."""
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        clock.advance(seconds)
        waits.append(seconds)
        at_round(len(waits))
        return len(waits) > times

    runner = GitLabRunner(
        site.registration,
        site.workshop(),
        Seats(lambda _: site.full),
        pause=pause,
        check_interval_s=interval_s,
    )
    site.runners.append(runner)
    runner.poll_forever()
    return waits[1:-1]


def last_updates(site: Site) -> list[str | None]:
    return [request.json.get("last_update") for request in site.server.asked("request")]


def test_13_an_empty_last_update_does_not_replace_the_one_before(
    site: Site, clock: FakeClock
) -> None:
    site.server.state.queue_value = "A"
    site.server.faults.append(Fault("request", 204, {"X-GitLab-Last-Update": "A"}))
    site.server.faults.append(Fault("request", 204))
    poll(site, clock, 3)
    assert last_updates(site) == [None, "A", "A"]


def test_14_a_poll_that_the_server_holds_is_no_error(
    site: Site, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    site.server.long_poll_s = 0.5
    poll(site, clock, 3)
    assert site.server.held_polls == 2
    assert len(site.server.asked("request")) == 3
    assert caplog.records == []


def test_15_a_job_that_comes_during_a_long_poll_is_taken_at_once(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        site.server.long_poll_s = 30
        site.runner().start()
        site.server.wait_until(lambda: site.server.held_polls == 1)
        job = site.server.add_job(payload())
        site.wait_over(job, 10)
        assert job.state == "success"


def test_16_a_job_that_another_runner_got_is_no_trouble(
    site: Site, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    site.server.faults.append(Fault("request", 409, count=5))
    assert poll(site, clock, 6) == [3.0] * 5
    assert caplog.records == []


def test_17_after_three_refusals_polling_slows_down(site: Site, clock: FakeClock) -> None:
    del site.server.state.runners[TOKEN]
    waits = poll(site, clock, 12)
    assert waits[:2] == [3.0, 3.0]
    assert waits[2:6] == [pytest.approx(wait, rel=0.1) for wait in (60, 120, 240, 480)]
    assert waits[-1] == pytest.approx(3600, rel=0.1)


def test_17_one_good_answer_resets_the_count(site: Site, clock: FakeClock) -> None:
    for status in (403, 403, 204, 403, 403):
        site.server.faults.append(Fault("request", status))
    assert poll(site, clock, 6) == [3.0] * 5


def test_18_a_token_that_works_again_is_noticed(site: Site, clock: FakeClock) -> None:
    site.server.faults.append(Fault("request", 403, count=4))
    poll(site, clock, 5)
    assert site.runners[0].health.is_healthy
    assert site.runners[0].health.message == ""


def test_a_health_tells_what_is_wrong() -> None:
    assert PollHealth().message == ""


def test_21_a_server_in_trouble_is_asked_again_at_the_usual_pace(
    site: Site, clock: FakeClock
) -> None:
    site.server.faults.append(Fault("request", 500, count=10))
    waits = poll(site, clock, 15)
    assert [number for number, wait in enumerate(waits) if wait == 3.0][:2] == [4, 9]
    assert max(waits) == 3.0
    assert site.runners[0].health.is_healthy


def test_26_at_the_limit_no_job_is_asked_for(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        site.registration = replace(site.registration, limit=1)
        site.builds.at_submit = site.builds.run_on
        first, second = site.server.add_job(payload(1)), site.server.add_job(payload(2))
        runner = site.runner()
        runner.start()
        site.builds.wait_for(lambda: len(site.builds.orders) == 1)
        asked = len(site.server.asked("request"))
        assert asked == 1
        assert second.state == "queued"
        site.builds.succeed(next(iter(site.builds.records)))
        site.builds.wait_for(lambda: len(site.builds.orders) == 2)
        site.builds.succeed(list(site.builds.records)[1])
        site.server.wait_until(lambda: first.is_over and second.is_over)


def test_27_no_job_is_asked_for_that_the_host_could_not_start(site: Site, clock: FakeClock) -> None:
    site.full = "only 3 GiB are free"

    def make_room(number: int) -> None:
        if number == 4:
            assert site.runners[0].waiting_for == "only 3 GiB are free"
            site.full = None

    poll(site, clock, 5, make_room)
    assert len(site.server.asked("request")) == 2
    assert site.runners[0].waiting_for == ""


def test_a_paused_registration_asks_for_nothing(site: Site, clock: FakeClock) -> None:
    site.registration = replace(site.registration, is_paused=True)
    poll(site, clock, 5)
    assert site.server.requests == []


def test_a_pause_and_its_end_count_at_once(site: Site, clock: FakeClock) -> None:
    def change(number: int) -> None:
        runner = site.runners[0]
        if number in {3, 6}:
            runner.update(replace(runner.registration, is_paused=number == 3))

    poll(site, clock, 8, change)
    assert len(site.server.requests) == 5


def test_an_idle_hour_makes_no_more_requests_than_the_official_runner(
    site: Site, clock: FakeClock
) -> None:
    begun = clock.monotonic()
    hour: list[int] = []

    def look(_number: int) -> None:
        if clock.monotonic() - begun >= 3600 and not hour:
            hour.append(len(site.server.requests))

    poll(site, clock, 1201, look)
    assert hour[0] <= 1200


def test_12_a_token_is_changed_before_it_expires_and_polling_goes_on(
    site: Site, clock: FakeClock
) -> None:
    begun = clock.now()
    site.registration = replace(
        site.registration, token_obtained=begun, token_expires=begun + timedelta(seconds=40)
    )
    poll(site, clock, 15)
    (reset,) = site.server.asked("reset")
    assert reset.json["token"] == TOKEN
    tokens = [request.json["token"] for request in site.server.asked("request")]
    assert tokens == [TOKEN] * 10 + [f"{TOKEN}-next"] * 5
    assert Registrations(site.home).load("lab").token == f"{TOKEN}-next"
    assert site.runners[0].health.is_healthy


def test_a_rotation_that_fails_is_tried_again_and_polling_goes_on(
    site: Site, clock: FakeClock
) -> None:
    begun = clock.now()
    site.registration = replace(
        site.registration, token_obtained=begun, token_expires=begun + timedelta(seconds=4)
    )
    site.server.faults.append(Fault("reset", 422, count=2))
    poll(site, clock, 5)
    assert len(site.server.asked("reset")) == 3
    assert Registrations(site.home).load("lab").token == f"{TOKEN}-next"


def test_a_stop_ends_a_long_poll_at_once(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        site.server.long_poll_s = 60
        runner = site.runner()
        runner.start()
        site.server.wait_until(lambda: site.server.held_polls == 1)
        ended = threading.Event()

        def stop() -> None:
            runner.stop()
            ended.set()

        threading.Thread(target=stop).start()
        assert ended.wait(5)


def test_calls_are_counted_by_operation_and_outcome(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        site.run_job()
        assert {("request-job", "201"), ("update-job", "200"), ("patch-trace", "202")} <= set(
            site.calls
        )
