"""Ephemeral runners by JIT configs: as many as jobs wait, and none left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from smidr_ci.errors import ConfigError
from smidr_ci.forges.github.runners.names import RunnerNames
from smidr_ci.forges.github.runners.options import RunnerOptions
from smidr_ci.forges.registration import Registration
from smidr_ci.home import Home
from tests.fakes.github.demand_bench import DemandBench
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer

GENERATE = "POST /repos/acme/bsp/actions/runners/generate-jitconfig"
LIST = "GET /repos/acme/bsp/actions/runners"
DELETE = r"DELETE /repos/acme/bsp/actions/runners/\d+"

Make = Callable[..., DemandBench]


@pytest.fixture
def make(room: Room) -> Iterator[Make]:
    benches: list[DemandBench] = []

    def made(**settings: Any) -> DemandBench:
        settings = {"mode": "jit", "labels": ["smidr"], **settings}
        benches.append(DemandBench(room, **settings))
        return benches[-1]

    yield made
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make: Make) -> DemandBench:
    return make()


def test_a_waiting_job_gets_one_runner_with_the_labels(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job()
    bench.look()
    (name,) = bench.runners.started
    assert name.startswith("smidr-")
    assert bench.remote == {name}
    (asked,) = github.asked(GENERATE)
    assert asked.body["runner_group_id"] == 1
    assert {"self-hosted", "smidr"} <= set(asked.body["labels"])
    assert set(bench.runners.labels[0]) == set(asked.body["labels"])
    bench.look()
    assert len(bench.runners.started) == 1


def test_no_config_of_a_runner_gets_into_what_is_kept_or_logged(
    bench: DemandBench, github: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bench.job()
    bench.look()
    (secret,) = github.state.runners.secrets
    kept = [path.read_bytes() for path in bench.home.root.rglob("*") if path.is_file()]
    assert not any(secret.encode() in text for text in kept)
    assert secret not in caplog.text
    assert "eyIu" not in caplog.text  # how each config begins


@pytest.mark.parametrize(
    "labels",
    [["self-hosted", "other"], ["self-hosted"], ["smidr", "gpu"], ["ubuntu-latest"], [], "smidr"],
)
def test_a_job_with_other_labels_is_ignored(
    bench: DemandBench, github: GitHubServer, labels: Any
) -> None:
    bench.job(labels=labels)
    if not isinstance(labels, list):
        github.is_strict = False
    bench.look()
    assert bench.runners.started == []
    if not isinstance(labels, list):
        github.violations.clear()


def test_labels_are_the_same_in_big_and_small_letters(bench: DemandBench) -> None:
    bench.job(labels=["Self-Hosted", "SMIDR", "linux"])
    bench.look()
    assert len(bench.runners.started) == 1


def test_a_job_that_was_over_before_it_was_heard_of_starts_nothing(bench: DemandBench) -> None:
    job = bench.job()
    job.update(status="completed", conclusion="cancelled")
    bench.made.heard("acme/bsp")
    bench.look()
    assert bench.runners.started == []


def test_there_are_no_more_runners_than_slots(bench: DemandBench) -> None:
    for _ in range(5):
        bench.job()
    bench.look()
    assert len(bench.runners.started) == 2
    assert "all slots are taken" in bench.made.told().detail


def test_the_limit_of_the_registration_holds(bench: DemandBench) -> None:
    bench.registration = replace(bench.registration, limit=1)
    bench.job()
    bench.job()
    bench.look()
    assert len(bench.runners.started) == 1
    assert "limit of 1" in bench.made.told().detail


def test_runners_count_for_the_hosts_other_jobs_too(bench: DemandBench) -> None:
    bench.refusal = lambda count: None if count < 1 else "all slots are in use"
    bench.job()
    bench.job()
    bench.look()
    assert len(bench.runners.started) == 1
    assert "all slots are in use" in bench.made.told().detail


def test_without_room_nothing_is_started_and_the_reason_is_told(bench: DemandBench) -> None:
    bench.runners.shortage = "less than 50 GB are free"
    bench.job()
    bench.look()
    assert bench.runners.started == []
    told = bench.made.told()
    assert told.state == "waiting"
    assert "less than 50 GB are free" in told.detail
    bench.runners.shortage = ""
    bench.look()
    assert len(bench.runners.started) == 1


def test_a_name_that_is_taken_leads_to_another(bench: DemandBench, github: GitHubServer) -> None:
    github.faults.append(Fault(GENERATE, status=409, body={"message": "Already exists"}, count=2))
    bench.job()
    bench.look()
    names = [asked.body["name"] for asked in github.asked(GENERATE)]
    assert len(set(names)) == 3
    assert bench.runners.started == names[2:]


def test_three_taken_names_are_enough_for_now(bench: DemandBench, github: GitHubServer) -> None:
    github.faults.append(Fault(GENERATE, status=409, body={"message": "Already exists"}, count=9))
    bench.job()
    bench.look()
    assert len(github.asked(GENERATE)) == 3
    assert bench.runners.started == []
    assert "Already exists" in bench.made.told().detail


def test_what_github_can_not_take_is_not_tried_again_soon(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    github.faults.append(Fault(GENERATE, status=422, body={"message": "bad group"}))
    bench.job()
    bench.look()
    assert bench.made.told().state == "waiting"
    assert "bad group" in bench.made.told().detail
    room.advance(300)
    bench.look()
    assert len(github.asked(GENERATE)) == 1
    room.advance(400)
    bench.look()
    assert len(bench.runners.started) == 1


def test_a_lost_permission_is_told_and_asked_for_again_less_and_less(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    refused = {"message": "Resource not accessible by integration"}
    github.faults.append(Fault(GENERATE, status=403, body=refused, count=99))
    bench.job()
    times = []
    for second in range(0, 1200, 20):
        before = len(github.asked(GENERATE))
        bench.look()
        if len(github.asked(GENERATE)) > before:
            times.append(second)
        room.advance(20)
    gaps = [after - before for before, after in pairwise(times)]
    assert 3 <= len(times) <= 8
    assert all(gap >= 60 for gap in gaps)
    assert gaps[-1] > gaps[0]
    assert "not accessible" in bench.made.told().detail


def test_a_rate_limit_stops_the_looking_for_as_long_as_it_says(
    bench: DemandBench, github: GitHubServer
) -> None:
    limited = {"Retry-After": "90"}
    github.faults.append(Fault("GET /repos/acme/bsp/actions/runs", status=429, headers=limited))
    bench.job()
    assert bench.look() >= 90
    assert "takes no more calls" in bench.made.told().detail


def test_a_rate_limit_at_the_config_is_waited_for(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    github.faults.append(Fault(GENERATE, status=429, headers={"Retry-After": "120"}))
    bench.job()
    bench.look()
    room.advance(60)
    bench.look()
    assert len(github.asked(GENERATE)) == 1
    room.advance(80)
    bench.look()
    assert len(bench.runners.started) == 1


@pytest.mark.parametrize("fault", [{"is_cut": True}, {"status": 502}, {"is_truncated": True}])
def test_a_runner_whose_config_was_lost_on_its_way_is_removed_later(
    bench: DemandBench, github: GitHubServer, room: Room, fault: dict[str, Any]
) -> None:
    github.faults.append(Fault(GENERATE, is_after=True, **fault))
    bench.job()
    bench.look()
    assert len(bench.remote) == 1
    assert bench.runners.started == []
    (lost,) = bench.remote
    room.advance(100)
    bench.look()
    bench.look()
    (name,) = bench.runners.started
    assert name != lost
    assert bench.remote == {name}


def test_a_job_cancelled_before_a_runner_had_it_leaves_no_runner(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    job = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.listen(name)
    job.update(status="completed", conclusion="cancelled")
    room.advance(60)
    bench.look()
    assert bench.runners.alive == [name]
    room.advance(300)
    bench.look()
    assert bench.runners.stopped == [name]
    assert bench.remote == set()
    assert len(github.asked(DELETE)) == 1


def test_a_registration_that_is_gone_already_is_fine(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    job = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.listen(name)
    job.update(status="completed", conclusion="cancelled")
    github.state.runners.finish(name)
    room.advance(400)
    bench.look()
    assert bench.runners.stopped == [name]


def test_an_idle_runner_that_github_calls_busy_is_left_alone(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    job = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.listen(name)
    job.update(status="completed", conclusion="cancelled")
    github.state.runners.begin(name)
    room.advance(400)
    bench.look()
    assert bench.runners.alive == [name]
    github.state.runners.known[next(iter(github.state.runners.known))]["busy"] = False
    room.advance(20)
    bench.look()
    assert bench.runners.stopped == [name]


def test_an_idle_runner_stays_while_github_does_not_answer(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    job = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.listen(name)
    job.update(status="completed", conclusion="cancelled")
    room.advance(400)
    github.faults.append(Fault(LIST, status=502, count=99))
    bench.look()
    assert bench.runners.alive == [name]


@pytest.mark.parametrize(("code", "least_s"), [(5, 30), (2, 30), (1, 30), (0, 30), (None, 30)])
def test_after_a_runner_without_a_job_the_next_one_waits(
    bench: DemandBench, room: Room, code: int | None, least_s: float
) -> None:
    bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.runners.exit(name, code)
    bench.look()
    assert bench.runners.stopped == [name]
    assert bench.remote == set()
    assert "ended without a job" in bench.made.told().detail
    room.advance(least_s - 1)
    bench.look()
    assert len(bench.runners.started) == 1
    room.advance(10)
    bench.look()
    assert len(bench.runners.started) == 2


def test_a_version_that_github_takes_no_more_is_told(bench: DemandBench, room: Room) -> None:
    bench.job()
    bench.look()
    bench.runners.exit(bench.runners.started[0], 7)
    bench.look()
    assert "no runner of this version" in bench.made.told().detail
    room.advance(500)
    bench.look()
    assert len(bench.runners.started) == 1


def test_runners_that_end_without_a_job_again_and_again_come_ever_more_rarely(
    bench: DemandBench, room: Room
) -> None:
    bench.job()
    for _ in range(90):
        bench.look()
        for name in bench.runners.alive:
            bench.runners.exit(name, 1)
        room.advance(20)
    assert 3 <= len(bench.runners.started) <= 8


def test_a_runner_that_did_its_job_makes_room_at_once(
    bench: DemandBench, github: GitHubServer
) -> None:
    first, second = bench.job(), bench.job()
    bench.runners.slots = 1
    bench.look()
    (name,) = bench.runners.started
    bench.listen(name)
    bench.take(name, first)
    bench.look()
    assert len(bench.runners.started) == 1
    bench.finish(name, first)
    bench.look()
    assert bench.runners.stopped == [name]
    assert len(bench.runners.started) == 2
    assert github.asked(DELETE) == []
    assert second["status"] == "queued"


def test_a_runner_that_ends_while_github_is_asked_is_not_replaced(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    first = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.take(name, first)
    room.advance(30)
    bench.job(556)
    bench.look()
    assert len(bench.runners.started) == 2
    held = threading.Event()
    github.faults.append(Fault("GET /repos/acme/bsp/actions/runs", until=held))
    looking = threading.Thread(target=bench.made.look)
    looking.start()
    github.wait_until(lambda: github.faults[-1].count == 0)
    bench.finish(name, first)
    held.set()
    looking.join()
    assert len(bench.runners.started) == 2
    assert len(bench.remote) == 1


def test_a_job_that_still_shows_as_waiting_gets_no_second_runner(
    bench: DemandBench, room: Room
) -> None:
    job = bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.take(name)  # GitHub's list is behind
    bench.look()
    assert len(bench.runners.started) == 1
    job.update(status="in_progress", runner_name=name)
    room.advance(20)
    bench.look()
    assert len(bench.runners.started) == 1
    bench.job(556)
    bench.look()
    assert len(bench.runners.started) == 2


def test_a_job_taken_by_somebody_elses_runner_is_no_trouble(bench: DemandBench) -> None:
    job = bench.job()
    bench.look()
    job.update(status="in_progress", runner_name="another")
    bench.job(556)
    bench.look()
    assert len(bench.runners.started) == 1  # jobs are counted, and not paired with runners


def test_runners_that_run_are_adopted_by_the_next_agent_and_not_doubled(
    bench: DemandBench, room: Room
) -> None:
    first, second = bench.job(), bench.job()
    bench.look()
    names = list(bench.runners.started)
    bench.take(names[0], first)
    bench.kill()
    bench.restart()
    bench.look()
    room.advance(30)
    bench.look()
    assert bench.runners.started == names
    assert bench.remote == set(names)
    assert second["status"] == "queued"


def test_a_runner_that_was_registered_when_the_agent_was_killed_is_removed(
    bench: DemandBench,
) -> None:
    bench.job()
    bench.look()
    (name,) = bench.runners.started
    bench.kill()
    bench.runners.stop(name)  # the kill came before its process
    bench.restart()
    bench.look()
    assert name not in bench.remote
    assert len(bench.runners.started) == 2
    assert bench.remote == {bench.runners.started[1]}


def test_lost_runners_of_this_host_are_deleted_and_no_others(
    bench: DemandBench, github: GitHubServer
) -> None:
    names = RunnerNames(bench.home, "lab")
    add = github.state.runners.add
    gone = names.fresh()
    add("/repos/acme/bsp", gone)
    busy = names.fresh()
    add("/repos/acme/bsp", busy, busy=True)
    online = names.fresh()
    add("/repos/acme/bsp", online, status="online")
    add("/repos/acme/bsp", "smidr-other-host-abcdef-01234567")
    add("/repos/acme/bsp", "build-box")
    bench.look()
    others = {"smidr-other-host-abcdef-01234567", "build-box"}
    assert bench.remote == {busy, online, *others}


def test_a_lost_runner_on_the_second_page_is_found(
    bench: DemandBench, github: GitHubServer
) -> None:
    names = RunnerNames(bench.home, "lab")
    for number in range(120):
        github.state.runners.add("/repos/acme/bsp", f"other-{number}")
    lost = names.fresh()
    github.state.runners.add("/repos/acme/bsp", lost)
    bench.look()
    assert lost not in bench.remote


def test_a_lost_runner_that_github_calls_busy_is_tried_later(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    lost = RunnerNames(bench.home, "lab").fresh()
    github.state.runners.add("/repos/acme/bsp", lost)
    github.faults.append(Fault(DELETE, status=422, body={"message": "busy"}))
    bench.look()
    assert lost in bench.remote
    room.advance(301)
    bench.look()
    assert lost not in bench.remote


def test_two_agents_of_one_host_leave_each_others_runners_alone(
    tmp_path: Any,
) -> None:
    first, second = Home(tmp_path / "one"), Home(tmp_path / "two")
    one, two = RunnerNames(first, "lab", "box"), RunnerNames(second, "lab", "box")
    assert not one.is_ours(two.fresh())
    assert one.is_ours(RunnerNames(first, "lab", "renamed").fresh())
    assert len(RunnerNames(first, "lab", "x" * 300).fresh()) <= 64


def test_a_runner_that_can_not_be_started_leaves_no_registration(
    bench: DemandBench, room: Room
) -> None:
    bench.runners.fails = 1
    bench.job()
    bench.look()
    assert bench.remote == set()
    assert "no such program" in bench.made.told().detail
    room.advance(40)
    bench.look()
    assert len(bench.runners.started) == 1


def test_draining_starts_nothing_and_lets_go_of_idle_runners(
    bench: DemandBench,
) -> None:
    first = bench.job()
    bench.job()
    bench.look()
    busy, idle = bench.runners.started
    bench.listen(idle)
    bench.take(busy, first)
    bench.made.drain()
    bench.look()
    assert bench.runners.alive == [busy]
    assert [line.split(": ")[1] for line in bench.made.described()] == ["busy"]
    bench.finish(busy, first)
    bench.look()
    assert not bench.made.is_busy
    assert bench.made.described() == []
    assert len(bench.runners.started) == 2


def test_draining_does_not_wait_for_a_github_that_forgot_the_app(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job()
    bench.look()
    bench.listen(bench.runners.started[0])
    github.faults.append(Fault(LIST, status=404, count=99))
    bench.made.drain()
    bench.look()
    assert bench.runners.alive == []


def test_a_paused_registration_starts_nothing(bench: DemandBench) -> None:
    bench.registration = replace(bench.registration, is_paused=True)
    bench.job()
    bench.look()
    assert bench.runners.started == []
    bench.registration = replace(bench.registration, is_paused=False)
    bench.look()
    assert len(bench.runners.started) == 1


def test_an_unchanged_list_costs_no_rate_limit(bench: DemandBench, github: GitHubServer) -> None:
    bench.job(labels=["other"])
    for _ in range(3):
        bench.look()
    looks = github.asked("GET /repos/acme/bsp/actions/runs(/555/jobs)?")
    assert all("if-none-match" in asked.headers for asked in looks[3:])


def test_jobs_of_a_repository_that_does_not_answer_are_as_before(
    bench: DemandBench, github: GitHubServer, room: Room
) -> None:
    job = bench.job()
    bench.look()
    github.faults.append(Fault("GET /repos/acme/bsp/actions/runs", status=503, count=99))
    room.advance(400)
    bench.look()
    assert len(bench.runners.alive) == 1
    assert bench.made.told().state == "waiting"
    github.faults.clear()
    job.update(status="completed", conclusion="cancelled")
    bench.look()
    assert bench.runners.alive == []


def test_a_token_that_was_revoked_in_between_is_replaced_once(
    bench: DemandBench, github: GitHubServer
) -> None:
    bench.job(labels=["other"])
    bench.look()
    for token in github.state.tokens.values():
        token.is_revoked = True
    bench.job(556)
    bench.look()
    assert len(bench.runners.started) == 1


def test_each_token_is_for_one_purpose(bench: DemandBench, github: GitHubServer) -> None:
    bench.job()
    bench.look()
    wanted = [item["permissions"] for item in github.state.token_requests]
    assert {"administration": "write"} in wanted
    assert all(len(item) == 1 for item in wanted)
    assert all(item["repositories"] == ["bsp"] for item in github.state.token_requests)


def test_news_and_exits_are_seen_to_without_waiting_for_the_next_look(
    bench: DemandBench,
) -> None:
    bench.start()
    job = bench.job()
    bench.made.heard("acme/bsp")
    bench.runners.wait_until(lambda: len(bench.runners.started) == 1)
    (name,) = bench.runners.started
    bench.take(name, job)
    bench.finish(name, job)
    bench.runners.wait_until(lambda: bench.runners.stopped == [name])


def test_stopping_leaves_the_runners_to_the_next_process(bench: DemandBench) -> None:
    bench.start()
    bench.job()
    bench.made.heard("acme/bsp")
    bench.runners.wait_until(lambda: len(bench.runners.started) == 1)
    bench.stop()
    assert bench.runners.alive == bench.runners.started
    assert not bench.runners.is_open
    assert len(bench.remote) == 1


# Organisations.


def test_runners_of_an_organisation_go_to_its_runner_group(
    make: Make, github: GitHubServer
) -> None:
    bench = make(url=f"{github.web}/acme", runner_group="builders")
    bench.job()
    bench.look()
    (asked,) = github.asked("POST /orgs/acme/actions/runners/generate-jitconfig")
    assert asked.body["runner_group_id"] == 2
    assert len(bench.runners.started) == 1
    wanted = [item["permissions"] for item in github.state.token_requests]
    assert {"organization_self_hosted_runners": "write"} in wanted


def test_a_runner_group_that_is_not_there_is_told(make: Make, github: GitHubServer) -> None:
    bench = make(url=f"{github.web}/acme", runner_group="nobody")
    bench.job()
    bench.look()
    assert "no runner group 'nobody'" in bench.made.told().detail


def test_all_repositories_of_an_organisation_are_looked_at_in_turn(
    make: Make, github: GitHubServer
) -> None:
    names = [f"acme/r{number}" for number in range(12)]
    github.state.runners.repositories = ["elsewhere/x", *names]
    bench = make(url=f"{github.web}/acme")
    for _ in range(3):
        bench.look()
    seen = {asked.path.split("/actions")[0] for asked in github.asked("GET /repos/.*/actions/runs")}
    assert seen == {f"/repos/{name}" for name in names}
    assert len(github.asked("GET /installation/repositories")) == 1


def test_a_repository_with_news_is_looked_at_first(make: Make, github: GitHubServer) -> None:
    github.state.runners.repositories = [f"acme/r{number}" for number in range(50)]
    bench = make(url=f"{github.web}/acme")
    bench.job()
    bench.made.heard("acme/bsp")
    bench.made.heard("mallory/bsp")
    bench.look()
    assert len(bench.runners.started) == 1
    assert github.asked("GET /repos/mallory/.*") == []


def test_one_repository_that_is_gone_does_not_hide_the_others(
    make: Make, github: GitHubServer
) -> None:
    bench = make(url=f"{github.web}/acme")
    github.faults.append(Fault("GET /repos/acme/other/actions/runs", status=404, count=99))
    bench.job()
    bench.look()
    assert len(bench.runners.started) == 1


def test_registrations_without_labels_of_their_own_are_refused() -> None:
    def options(**settings: Any) -> RunnerOptions:
        return RunnerOptions.of(
            Registration("lab", "github", "https://github.com/acme", "", settings=settings)
        )

    assert options().mode == "attach"
    for bad in (
        {"mode": "jit"},
        {"mode": "jit", "labels": ["self-hosted", "Linux"]},
        {"mode": "jit", "labels": ["a,b"]},
        {"mode": "jit", "labels": [7]},
        {"mode": "jit", "labels": "smidr"},
        {"mode": "scale-set"},
        {"mode": "scale-set", "scale_set": "../x"},
        {"mode": "scale-set", "scale_set": "self-hosted"},
        {"mode": "native"},
    ):
        with pytest.raises(ConfigError):
            options(**bad)
    assert options(mode="jit", labels=["smidr", "SMIDR", "x"]).labels == ("smidr", "x")
