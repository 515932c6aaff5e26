"""A runner scale set's queue: sessions, messages, statistics, and what goes wrong there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.exchange import Reply
from smidr_ci.forges.github.runners.actions_service import checked_url
from smidr_ci.forges.github.runners.messages import Message, Statistics
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.registration import Registrations
from tests.fakes.github.demand_bench import DemandBench
from tests.fakes.github.room import Room
from tests.fakes.github.scale_sets import QUEUE, TENANT, FakeScaleSet, FakeScaleSets
from tests.fakes.github.server import Fault, GitHubServer

SETS = f"{TENANT}/_apis/runtime/runnerscalesets"
POLL = f"GET {QUEUE}"
SESSIONS = rf"{SETS}/\d+/sessions"
GENERATE = rf"POST {SETS}/\d+/generatejitconfig"
AGENTS = f"{TENANT}/_apis/distributedtask/pools/0/agents"

Make = Callable[..., DemandBench]


@pytest.fixture
def make(room: Room) -> Iterator[Make]:
    benches: list[DemandBench] = []

    def made(**settings: Any) -> DemandBench:
        settings = {"mode": "scale-set", "scale_set": "smidr-lab1", **settings}
        benches.append(DemandBench(room, **settings))
        return benches[-1]

    yield made
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make: Make) -> DemandBench:
    return make()


@pytest.fixture
def sets(github: GitHubServer) -> FakeScaleSets:
    return github.scale_sets


def listening(bench: DemandBench, polls: int = 1) -> None:
    """Started, and so many polls were answered or are held."""
    if not bench.runners.is_open:
        bench.start()
    polled(bench, polls)


def polled(bench: DemandBench, more: int = 2) -> None:
    """So many polls later."""
    already = len(bench.server.scale_sets.capacities)
    bench.server.wait_until(lambda: len(bench.server.scale_sets.capacities) >= already + more)


def put(bench: DemandBench, *items: dict[str, Any], **totals: Any) -> int:
    with bench.server.lock:
        number = bench.server.scale_sets.put(*items, **totals)
        bench.server.lock.notify_all()
    return number


def confirmed(bench: DemandBench, number: int) -> None:
    bench.server.wait_until(lambda: number not in bench.server.scale_sets.only.messages)


def started(bench: DemandBench, count: int) -> None:
    bench.runners.wait_until(lambda: len(bench.runners.started) >= count)
    bench.look()
    assert len(bench.runners.started) == count


# Connecting.


def test_a_host_registers_with_remote_auth_and_makes_its_scale_set(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    (asked,) = github.asked("POST /actions/runner-registration")
    assert asked.headers["authorization"].startswith("RemoteAuth ")
    assert asked.body == {"url": github.url, "runner_event": "register"}
    assert sets.only.body == {
        "name": "smidr-lab1",
        "runnerGroupId": 1,
        "runnerGroupName": "Default",
        "labels": [{"type": "System", "name": "smidr-lab1"}],
        "RunnerSetting": {"disableUpdate": True},
    }
    assert sets.only.session is not None
    assert "Bearer" in github.asked(f"POST {SETS}")[0].headers["authorization"]


def test_an_organisations_scale_set_is_in_its_group(
    make: Make, github: GitHubServer, sets: FakeScaleSets
) -> None:
    bench = make(url=f"{github.web}/acme", runner_group="builders", labels=["yocto"])
    listening(bench)
    assert sets.registrations[0]["url"] == f"{github.web}/acme"
    assert len(github.asked("POST /orgs/acme/actions/runners/registration-token")) == 1
    assert sets.only.body["runnerGroupId"] == 2
    assert [item["name"] for item in sets.only.body["labels"]] == ["smidr-lab1", "yocto"]


def test_the_admin_token_is_renewed_a_minute_before_its_end(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    listening(bench)
    number = put(bench, assigned=1)
    confirmed(bench, number)
    started(bench, 1)
    assert len(github.asked("POST /actions/runner-registration")) == 1
    bench.take(bench.runners.started[0])
    room.advance(3600 - 59)
    put(bench, assigned=2)
    started(bench, 2)
    assert len(github.asked("POST /actions/runner-registration")) == 2
    assert [asked for asked in github.asked(".*") if asked.path.startswith(TENANT)]


def test_a_refused_admin_token_is_replaced_once(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        sets.tokens.clear()
    put(bench, assigned=1)
    started(bench, 1)
    assert len(github.asked("POST /actions/runner-registration")) == 2


def test_a_registration_token_that_is_not_known_everywhere_yet_is_tried_again(
    bench: DemandBench, github: GitHubServer
) -> None:
    refused = {"message": "Bad credentials"}
    github.faults.append(
        Fault("POST /actions/runner-registration", status=401, body=refused, count=2)
    )
    github.faults.append(Fault("POST /actions/runner-registration", status=403, count=1))
    listening(bench)
    assert len(github.asked("POST /actions/runner-registration")) == 4


def test_a_missing_permission_is_told_and_tried_again(
    bench: DemandBench, github: GitHubServer
) -> None:
    path = "POST /repos/acme/bsp/actions/runners/registration-token"
    said = {"message": "Resource not accessible by integration"}
    github.faults.append(Fault(path, status=403, body=said, count=5))
    bench.start()
    github.wait_until(lambda: len(github.faults) == 1 and github.faults[0].count < 2)
    bench.runners.wait_until(lambda: bool(bench.made.told()))
    listening(bench)
    assert len(github.asked(path)) == 6


def test_a_scale_set_that_is_there_is_used_and_set_right(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    body = {
        "name": "smidr-lab1",
        "runnerGroupId": 1,
        "labels": [{"type": "System", "name": "old"}],
        "RunnerSetting": {"disableUpdate": False},
    }
    sets.sets[3] = FakeScaleSet(3, body)
    listening(bench)
    assert list(sets.sets) == [3]
    assert sets.only.body["labels"] == [{"type": "System", "name": "smidr-lab1"}]
    assert sets.only.body["RunnerSetting"] == {"disableUpdate": True}
    assert github.asked(f"POST {SETS}") == []


@pytest.mark.parametrize("fault", [{"is_cut": True}, {"status": 502}, {"is_truncated": True}])
def test_a_scale_set_is_made_once_also_when_the_answer_is_lost(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, fault: dict[str, Any]
) -> None:
    github.faults.append(Fault(f"POST {SETS}", is_after=True, **fault))
    listening(bench)
    assert len(sets.sets) == 1


def test_a_runner_group_that_is_not_there_is_told(make: Make, github: GitHubServer) -> None:
    bench = make(url=f"{github.web}/acme", runner_group="nobody")
    bench.start()
    github.wait_until(lambda: len(github.asked(f"GET {TENANT}/_apis/runtime/runnergroups/")) > 1)
    bench.look()
    assert "no runner group 'nobody'" in bench.made.told().detail
    assert bench.made.told().state == "waiting"


# Sessions.


def test_another_agents_session_is_waited_for_as_long_as_it_takes(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, room: Room
) -> None:
    listening(bench)
    bench.kill()
    bench.home.root.joinpath("github/lab/session.json").unlink()  # as on another host
    before = room.clock.monotonic()
    bench.restart()
    bench.start()
    github.wait_until(lambda: room.clock.monotonic() > before + 180)
    bench.look()
    assert "another agent listens" in bench.made.told().detail
    tries = len(github.asked(f"POST {SESSIONS}"))
    assert tries < 40
    with github.lock:
        sets.only.session = None
    polled(bench, 1)
    bench.look()
    assert bench.made.told().state == "asking"


def test_a_killed_agents_session_is_ended_by_the_next_at_once(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    old = dict(sets.only.session or {})
    bench.kill()
    assert sets.only.session == old
    bench.restart()
    listening(bench)
    assert sets.only.session is not None
    assert sets.only.session["sessionId"] != old["sessionId"]
    assert len(github.asked(f"POST {SESSIONS}")) == 2


def test_two_agents_at_one_scale_set_take_turns(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, tmp_path: Any
) -> None:
    listening(bench)
    mine = (sets.only.session or {})["sessionId"]
    folder = tmp_path / "second"
    folder.mkdir()
    other = DemandBench(Room(github, folder), mode="scale-set", scale_set="smidr-lab1")
    other.start()
    github.wait_until(lambda: len(github.asked(f"POST {SESSIONS}")) >= 5)
    assert (sets.only.session or {})["sessionId"] == mine
    bench.stop()
    github.wait_until(lambda: (sets.only.session or {}).get("sessionId") not in {mine, None})
    put(other, assigned=1)
    started(other, 1)
    assert bench.runners.started == []
    other.close()


def test_the_session_is_ended_when_the_agent_stops_while_it_listens(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    sets.poll_s = 60.0
    listening(bench)
    done = threading.Timer(30, lambda: None)
    done.start()
    bench.stop()
    assert done.is_alive()
    done.cancel()
    done.join()
    assert len(github.asked(f"DELETE {SESSIONS}/.*")) == 1
    assert sets.only.session is None
    assert not bench.home.root.joinpath("github/lab/session.json").exists()


def test_a_refused_queue_token_is_renewed_once_and_the_poll_goes_on(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        assert sets.only.session is not None
        sets.only.session["token"] = "another"
    put(bench, assigned=1)
    started(bench, 1)
    assert len(github.asked(f"PATCH {SESSIONS}/.*")) == 1
    assert len(github.asked(f"POST {SESSIONS}")) == 1


def test_a_queue_that_refuses_new_tokens_too_leads_to_a_new_session(
    bench: DemandBench, github: GitHubServer
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(POLL, status=401, body={"typeName": "X"}, count=2))
    github.wait_until(lambda: len(github.asked(f"POST {SESSIONS}")) == 2)
    put(bench, assigned=1)
    started(bench, 1)


def test_a_session_that_github_forgot_is_begun_again(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        sets.only.session = None
        github.lock.notify_all()
    github.wait_until(lambda: len(github.asked(f"POST {SESSIONS}")) == 2)
    put(bench, assigned=1)
    started(bench, 1)
    assert len(sets.sets) == 1


# Messages.


def test_without_news_the_next_poll_comes_at_once_and_the_last_figures_hold(
    bench: DemandBench, room: Room
) -> None:
    before = room.clock.monotonic()
    listening(bench)
    polled(bench, 5)
    assert room.clock.monotonic() == before  # nothing waited in between
    put(bench, assigned=2)
    started(bench, 2)
    bench.runners.exit(bench.runners.started[0], 1)
    room.advance(60)
    bench.look()
    room.advance(60)
    bench.look()
    assert len(bench.runners.started) == 3  # for a job that is still assigned


def test_a_queue_that_holds_no_poll_is_not_asked_all_the_time(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, room: Room
) -> None:
    sets.poll_s = 0.0
    before = room.clock.monotonic()
    listening(bench)
    github.wait_until(lambda: len(sets.capacities) >= 60)
    assert room.clock.monotonic() - before >= 5 * 30
    put(bench, assigned=1)
    started(bench, 1)


def test_figures_of_the_session_hold_before_the_first_message(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    bench.stop()
    with github.lock:
        sets.only.totals["assigned"] = 1
    bench.restart()
    bench.start()
    started(bench, 1)


def test_a_message_is_confirmed_and_the_next_poll_says_so(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    number = put(bench, sets.item("JobAssigned"), assigned=1)
    confirmed(bench, number)
    (asked,) = github.asked(rf"DELETE {QUEUE}/\d+")
    assert asked.path.endswith(f"/{number}")
    assert sets.only.session is not None
    assert asked.headers["authorization"] == f"Bearer {sets.only.session['token']}"
    assert asked.query["sessionId"] == sets.only.session["sessionId"]
    polled(bench)
    assert github.asked(POLL)[-1].query["lastMessageId"] == str(number)
    assert "lastMessageId" not in github.asked(POLL)[0].query
    started(bench, 1)


def test_the_same_message_twice_changes_nothing(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(rf"DELETE {QUEUE}/\d+", status=404, count=1))
    item = sets.item("JobAssigned")
    number = put(bench, item, assigned=1)
    started(bench, 1)
    bench.stop()
    assert number in sets.only.messages
    bench.restart()
    bench.start()
    confirmed(bench, number)
    started(bench, 1)


def test_a_message_whose_confirmation_is_lost_comes_again_and_changes_nothing(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(rf"DELETE {QUEUE}/\d+", is_cut=True, count=1, status=0))
    number = put(bench, sets.item("JobAssigned"), assigned=1)
    confirmed(bench, number)
    started(bench, 1)


def test_figures_count_where_items_were_cut_off(bench: DemandBench, sets: FakeScaleSets) -> None:
    bench.runners.slots = 60
    listening(bench)
    items = [sets.item("JobAssigned") for _ in range(50)]
    put(bench, *items, assigned=55)
    started(bench, 55)


def test_items_count_where_the_figures_are_late(bench: DemandBench, sets: FakeScaleSets) -> None:
    listening(bench)
    put(bench, sets.item("JobAssigned"), assigned=0)
    started(bench, 1)


def test_a_message_with_figures_only_is_one(bench: DemandBench) -> None:
    listening(bench)
    put(bench, assigned=1)
    started(bench, 1)


def test_jobs_that_are_to_be_had_are_taken_and_what_others_got_is_fine(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    first, second = sets.item("JobAvailable"), sets.item("JobAvailable")
    sets.only.acquirable = {second["runnerRequestId"]}
    number = put(bench, first, second, available=2, assigned=1)
    confirmed(bench, number)
    (asked,) = github.asked(rf"POST {SETS}/\d+/acquirejobs")
    assert asked.body == [first["runnerRequestId"], second["runnerRequestId"]]
    assert sets.only.session is not None
    assert asked.headers["authorization"] == f"Bearer {sets.only.session['token']}"
    assert sets.only.acquired == [second["runnerRequestId"]]
    started(bench, 1)


def test_jobs_are_taken_with_a_new_token_when_the_old_one_is_over(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    item = sets.item("JobAvailable")
    with github.lock:
        sets.only.acquirable = {item["runnerRequestId"]}
        github.faults.append(Fault(rf"POST {SETS}/\d+/acquirejobs", status=401))
    put(bench, item)
    github.wait_until(lambda: sets.only.acquired == [item["runnerRequestId"]])


def test_a_job_that_can_not_be_taken_holds_nothing_up(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(rf"POST {SETS}/\d+/acquirejobs", status=400, count=9))
    number = put(bench, sets.item("JobAvailable"), assigned=1)
    confirmed(bench, number)
    started(bench, 1)


def test_taking_jobs_is_tried_again_when_the_answer_is_lost(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    item = sets.item("JobAvailable")
    with github.lock:
        sets.only.acquirable = {item["runnerRequestId"]}
        lost = Fault(rf"POST {SETS}/\d+/acquirejobs", is_after=True, is_cut=True)
        github.faults.append(lost)
    number = put(bench, item)
    confirmed(bench, number)
    assert sets.only.acquired == [item["runnerRequestId"]]


def test_a_job_github_takes_back_leaves_its_runner_to_the_next_one(
    bench: DemandBench, sets: FakeScaleSets
) -> None:
    listening(bench)
    item = sets.item("JobAssigned")
    put(bench, item, assigned=1)
    started(bench, 1)
    (name,) = bench.runners.started
    bench.listen(name)
    again = {**item, "messageType": "JobCompleted", "result": "canceled"}
    number = put(bench, again, assigned=0)
    confirmed(bench, number)
    put(bench, sets.item("JobAssigned"), assigned=1)
    polled(bench)
    started(bench, 1)
    assert bench.runners.alive == [name]
    assert bench.made.told().state == "asking"


def test_a_job_that_only_github_knows_of_was_one(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    put(bench, assigned=1)
    started(bench, 1)
    (name,) = bench.runners.started
    number = put(bench, sets.item("JobStarted", runnerName=name), assigned=1, running=1)
    confirmed(bench, number)
    with github.lock:
        github.state.runners.finish(name)
    bench.runners.exit(name, 0)  # and this host has seen nothing of the job
    put(bench, assigned=1, running=0)
    started(bench, 2)
    assert bench.made.told().state == "asking"


@pytest.mark.parametrize(
    "answer",
    [
        {"messageId": 99, "messageType": "RunnerScaleSetJobMessages", "body": "no json"},
        {"messageId": 99, "messageType": "SomethingNew", "body": "[]"},
        {"messageId": 99, "messageType": "RunnerScaleSetJobMessages", "body": '[1, {"x": 2}]'},
        {"messageId": 99, "body": '[{"messageType": "JobDreamt", "runnerRequestId": "x"}]'},
        {"messageId": 99, "body": None, "statistics": {"totalAssignedJobs": "many"}},
        {"messageId": 99, "body": "[" * 5000, "statistics": None},
    ],
)
def test_messages_in_another_form_are_confirmed_and_do_no_harm(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, answer: dict[str, Any]
) -> None:
    listening(bench)
    with github.lock:
        sets.only.messages[99] = answer
        github.lock.notify_all()
    confirmed(bench, 99)
    put_number = 100
    with github.lock:
        sets.only.totals["assigned"] = 1
        made = {"messageId": put_number, "body": "", "statistics": sets.statistics(sets.only)}
        sets.only.messages[put_number] = made
        github.lock.notify_all()
    started(bench, 1)


def test_a_message_without_a_number_is_trouble_and_no_end(
    bench: DemandBench, github: GitHubServer
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(POLL, status=200, body={"messageId": "x"}, count=2))
    github.wait_until(lambda: github.faults[-1].count == 0)
    put(bench, assigned=1)
    started(bench, 1)


# Capacity.


def test_github_hears_how_many_runners_this_host_could_have(
    bench: DemandBench, sets: FakeScaleSets
) -> None:
    listening(bench)
    assert sets.capacities[-1] == "2"
    put(bench, assigned=1)
    started(bench, 1)
    bench.take(bench.runners.started[0])
    polled(bench)
    assert sets.capacities[-1] == "2"


def test_without_disk_or_memory_the_capacity_is_none_and_the_reason_is_told(
    bench: DemandBench, sets: FakeScaleSets
) -> None:
    bench.runners.shortage = "less than 50 GB are free"
    listening(bench, 2)
    assert sets.capacities[-1] == "0"
    put(bench, assigned=1)
    polled(bench)
    bench.look()
    assert bench.runners.started == []
    assert "less than 50 GB are free" in bench.made.told().detail
    bench.runners.shortage = ""
    polled(bench)
    assert sets.capacities[-1] == "2"
    started(bench, 1)


def test_jobs_at_work_still_count_when_disk_is_short(
    bench: DemandBench, sets: FakeScaleSets
) -> None:
    listening(bench)
    put(bench, assigned=2)
    started(bench, 2)
    bench.take(bench.runners.started[0])
    bench.runners.shortage = "memory is short"
    polled(bench)
    assert sets.capacities[-1] == "1"


def test_a_paused_registration_has_no_capacity(bench: DemandBench, sets: FakeScaleSets) -> None:
    bench.registration = replace(bench.registration, is_paused=True)
    listening(bench, 2)
    assert sets.capacities[-1] == "0"
    put(bench, assigned=1)
    polled(bench)
    bench.look()
    assert bench.runners.started == []


def test_draining_ends_with_the_jobs_and_the_session(
    bench: DemandBench, sets: FakeScaleSets
) -> None:
    listening(bench)
    put(bench, assigned=2)
    started(bench, 2)
    busy, idle = bench.runners.started
    bench.take(busy)
    bench.listen(idle)
    bench.made.drain()
    bench.runners.wait_until(lambda: bench.runners.stopped == [idle])
    assert bench.made.is_busy
    polled(bench)
    assert sets.capacities[-1] == "1"
    bench.finish(busy)
    bench.runners.wait_until(lambda: set(bench.runners.stopped) == {idle, busy})
    bench.stop()
    assert sets.only.session is None
    assert len(bench.runners.started) == 2


# Trouble.


def test_a_scale_set_that_was_deleted_is_made_again(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    (old,) = sets.sets
    with github.lock:
        sets.sets.clear()
        github.lock.notify_all()
    github.wait_until(lambda: bool(sets.sets) and sets.only.session is not None)
    assert old not in sets.sets
    put(bench, assigned=1)
    started(bench, 1)
    assert github.asked(GENERATE)[-1].path.startswith(f"{SETS}/{sets.only.number}/")


def test_a_scale_set_without_a_queue_is_looked_for_again(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    sets.queue_url = "-"
    bench.start()
    github.wait_until(lambda: len(github.asked(f"POST {SESSIONS}")) >= 2)
    with github.lock:
        sets.queue_url = ""
        sets.only.session = None
    listening(bench)
    assert len(sets.sets) == 1


def test_a_scale_set_that_went_with_its_registration_stays_away(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets
) -> None:
    listening(bench)
    Registrations(bench.home).remove("lab")
    with github.lock:
        sets.sets.clear()
        github.lock.notify_all()
    github.wait_until(lambda: len(github.asked(f"GET {SETS}")) >= 4)
    assert sets.sets == {}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 502}, {"is_cut": True}])
def test_a_poll_without_a_good_answer_is_repeated_in_the_same_session(
    bench: DemandBench, github: GitHubServer, fault: dict[str, Any]
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(POLL, count=3, **fault))
    github.wait_until(lambda: github.faults[-1].count == 0)
    put(bench, assigned=1)
    started(bench, 1)
    assert len(github.asked(f"POST {SESSIONS}")) == 1


def test_a_poll_that_never_ends_is_given_up_and_made_again(
    bench: DemandBench, github: GitHubServer
) -> None:
    listening(bench)
    held = threading.Event()
    with github.lock:
        github.faults.append(Fault(POLL, until=held))
    put(bench, assigned=1)  # while the fake holds the answer back for longer than any poll lasts
    started(bench, 1)
    held.set()


def test_a_github_that_is_down_for_an_hour_is_waited_for(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, room: Room
) -> None:
    listening(bench)
    before = room.clock.monotonic()
    github.is_down = True
    while room.clock.monotonic() < before + 3600:
        bench.look()
    assert "no answer from GitHub" in bench.made.told().detail
    with github.lock:
        sets.only.session = None  # over for GitHub, too
    github.is_down = False
    listening(bench)
    put(bench, assigned=1)
    started(bench, 1)


def test_a_runners_config_that_is_lost_leads_to_another_name(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    listening(bench)
    with github.lock:
        github.faults.append(Fault(GENERATE, is_after=True, is_cut=True))
    put(bench, assigned=1)
    github.wait_until(lambda: len(bench.server.state.runners.known) == 1)
    (lost,) = bench.remote
    bench.look()
    room.advance(100)
    started(bench, 1)
    room.advance(100)
    bench.look()
    assert bench.remote == set(bench.runners.started)
    assert lost not in bench.runners.started


def test_a_name_that_is_taken_leads_to_another(bench: DemandBench, github: GitHubServer) -> None:
    listening(bench)
    taken = {"typeName": "GitHub.DistributedTask.AgentExistsException, GitHub", "message": "taken"}
    with github.lock:
        github.faults.append(Fault(GENERATE, status=409, body=taken, count=2))
    put(bench, assigned=1)
    started(bench, 1)
    assert len({asked.body["name"] for asked in github.asked(GENERATE)}) == 3


def test_an_idle_runner_that_nobody_wants_is_removed_and_a_busy_one_is_not(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    listening(bench)
    put(bench, assigned=2)
    started(bench, 2)
    first, second = bench.runners.started
    bench.listen(first)
    bench.listen(second)
    github.state.runners.begin(second)  # which this host has not heard of yet
    number = put(bench, assigned=0)
    confirmed(bench, number)
    room.advance(400)
    bench.look()
    assert bench.runners.alive == [second]
    assert len(github.asked(rf"DELETE {AGENTS}/\d+")) >= 2


def test_a_job_that_github_promises_and_does_not_bring_costs_few_runners(
    bench: DemandBench, room: Room
) -> None:
    listening(bench)
    put(bench, assigned=1)
    started(bench, 1)
    for _ in range(120):
        for name in bench.runners.alive:
            if bench.runners.known[name].state == "starting":
                bench.listen(name)
        room.advance(30)
        bench.look()
    assert len(bench.runners.started) <= 5


def test_all_is_found_again_after_a_kill(bench: DemandBench, sets: FakeScaleSets) -> None:
    listening(bench)
    number = put(bench, sets.item("JobAssigned"), assigned=2)
    confirmed(bench, number)
    started(bench, 2)
    bench.take(bench.runners.started[0])
    bench.kill()
    bench.restart()
    listening(bench, 2)
    bench.look()
    assert len(bench.runners.started) == 2
    assert bench.remote == set(bench.runners.started)


def test_text_answers_and_marks_before_json_are_understood(
    bench: DemandBench, github: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = {"ActivityId": "activity-7", "X-GitHub-Request-Id": "REQ:7"}
    github.faults.append(
        Fault(f"GET {SETS}", status=418, body="<html>\x1b[31mno</html>", headers=ids)
    )
    listening(bench)  # each good answer of the fake begins with a byte order mark
    assert "activity-7" in caplog.text
    assert "REQ:7" in caplog.text
    assert "\x1b" not in caplog.text


def test_no_token_gets_into_logs_or_files(
    bench: DemandBench, github: GitHubServer, sets: FakeScaleSets, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="smidr_ci")
    listening(bench)
    put(bench, assigned=1)
    started(bench, 1)
    assert sets.only.session is not None
    secrets = [*sets.tokens, *github.state.runners.tokens, sets.only.session["token"]]
    secrets += github.state.runners.secrets
    kept = b"".join(path.read_bytes() for path in bench.home.root.rglob("*") if path.is_file())
    assert all(secret not in caplog.text for secret in secrets)
    assert all(secret.encode() not in kept for secret in secrets)


# Parts.


@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example/message",
        "http://127.0.0.1/message",
        "https://user:secret@broker.example/x",
        "file:///etc/passwd",
        "https://",
        "https://[::1",
        "",
        None,
        7,
        "https://broker.example/a b",
        "https://broker.example/\n",
    ],
)
def test_addresses_that_would_lose_the_token_are_not_used(url: object) -> None:
    with pytest.raises(ForgeError, match="address of no use"):
        checked_url(url, Site.of("https://github.com/acme"))


def test_addresses_of_github_are_used() -> None:
    url = "https://broker.actions.githubusercontent.com/scalesets/message?sessionId=1"
    assert checked_url(url, Site.of("https://github.com/acme")) == url
    local = "http://127.0.0.1:9000/t"
    assert checked_url(local, Site.of("http://127.0.0.1:9000/acme")) == local


@pytest.mark.parametrize(
    ("raw", "assigned"),
    [
        ({}, 0),
        (None, 0),
        ([], 0),
        ({"totalAssignedJobs": -4}, 0),
        ({"totalAssignedJobs": True}, 0),
        ({"totalAssignedJobs": 10**30}, 1_000_000),
        ({"totalAssignedJobs": 3, "new": {}}, 3),
    ],
)
def test_figures_are_read_leniently(raw: object, assigned: int) -> None:
    assert Statistics.of(raw).assigned == assigned


def test_unset_times_and_odd_values_of_items_are_fine() -> None:
    body = (
        '[{"messageType": "JobStarted", "runnerRequestId": 9007199254740993, "ownerName": "..",'
        ' "repositoryName": "../..", "finishTime": "0001-01-01T00:00:00Z", "runnerName": null,'
        ' "jobDisplayName": "a\\u001b[31mb"}]'
    )
    raw = json.dumps({"messageId": 5, "body": "\ufeff" + body}).encode()
    reply = Reply(200, CaseInsensitiveDict(), raw, "https://github.example")
    (item,) = Message.of(reply).items
    assert (item.request_id, item.repository, item.runner_name) == (9007199254740993, "", "")
    assert item.job_name == "ab"
