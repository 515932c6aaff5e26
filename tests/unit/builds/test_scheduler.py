"""Which build starts next, why the others wait, and what a restart or new settings change."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict

import pytest

from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.slots import Policy, Waiting
from smidr_ci.errors import InternalError
from tests.fakes.admission import FakeAdmission

GIB = 1024**3


def policy(builds: int = 3, memory: int = 24, per_customer: int = 1, **customers: int) -> Policy:
    return Policy(builds, memory * GIB, per_customer=per_customer, customers=customers)


def scheduler(limits: Policy | None = None, admission: FakeAdmission | None = None) -> Scheduler:
    return Scheduler(limits or policy(), admission or FakeAdmission())


def build(
    name: str, position: int, memory: float | None = None, cpus: float | None = None
) -> Waiting:
    """`acme-1` is customer acme's."""
    memory_bytes = None if memory is None else int(memory * GIB)
    return Waiting(name, name.rpartition("-")[0], position, memory_bytes, cpus)


def queue(target: Scheduler, *names: str) -> None:
    for position, name in enumerate(names):
        target.add(build(name, position))


def started(target: Scheduler) -> list[str]:
    """Take until nothing more may start."""
    return [found.build_id for found in iter(target.take, None)]


def test_builds_of_one_customer_run_one_after_the_other_in_their_order() -> None:
    line = scheduler()
    queue(line, "acme-1", "acme-2", "acme-3")
    assert started(line) == ["acme-1"]
    assert line.reasons() == {
        "acme-2": "1 build of customer acme runs already (limit 1)",
        "acme-3": "behind acme-2 of the same customer",
    }
    line.finished("acme-1")
    assert started(line) == ["acme-2"]
    assert line.queued == ("acme-3",)


def test_a_late_arrival_with_an_early_position_takes_its_old_place() -> None:
    line = scheduler()
    line.add(build("acme-2", 20))
    line.add(build("bravo-3", 30))
    line.add(build("acme-1", 10))
    assert line.queued == ("acme-1", "acme-2", "bravo-3")
    assert started(line) == ["acme-1", "bravo-3"]


def test_customers_run_side_by_side_and_the_oldest_head_goes_first() -> None:
    line = scheduler(policy(builds=2))
    queue(line, "acme-1", "acme-2", "bravo-1", "delta-1")
    assert started(line) == ["acme-1", "bravo-1"]
    assert line.reasons() == {
        "acme-2": "1 build of customer acme runs already (limit 1)",
        "delta-1": "all 2 slots are taken",
    }
    line.finished("acme-1")
    assert started(line) == ["acme-2"]  # it has waited longer than delta-1


def test_a_customer_may_have_a_limit_of_its_own() -> None:
    line = scheduler(policy(builds=9, acme=3, bravo=1, per_customer=2))
    queue(line, *(f"{name}-{n}" for n in range(5) for name in ("acme", "bravo", "delta")))
    counts = Counter(name.rpartition("-")[0] for name in started(line))
    assert counts == {"acme": 3, "bravo": 1, "delta": 2}
    assert line.reason_of("acme-3") == "3 builds of customer acme run already (limit 3)"


def test_a_host_with_one_slot_says_so() -> None:
    line = scheduler(policy(builds=1))
    queue(line, "acme-1", "bravo-1")
    assert started(line) == ["acme-1"]
    assert line.reason_of("bravo-1") == "the only slot is taken"
    assert line.max_running == 1


def test_a_dropped_build_never_starts_and_frees_the_way() -> None:
    line = scheduler()
    queue(line, "acme-1", "acme-2")
    assert line.drop("acme-1")
    assert not line.drop("acme-1")
    assert started(line) == ["acme-2"]
    assert not line.drop("acme-2")
    assert not line.drop("never-1")
    assert line.running == ("acme-2",)


def test_a_build_is_queued_or_runs_once() -> None:
    line = scheduler()
    queue(line, "acme-1", "bravo-1")
    with pytest.raises(InternalError, match="acme-1 is queued or running"):
        line.add(build("acme-1", 7))
    line.take()
    with pytest.raises(InternalError, match="acme-1 is queued or running"):
        line.add(build("acme-1", 7))
    with pytest.raises(InternalError, match="acme-1 is running"):
        line.resume(build("acme-1", 7))
    line.resume(build("bravo-1", 1))
    assert (line.running, line.queued) == (("acme-1", "bravo-1"), ())


def test_the_end_of_a_build_that_holds_no_place_changes_nothing() -> None:
    line = scheduler()
    queue(line, "acme-1", "acme-2")
    line.finished("acme-1")
    assert started(line) == ["acme-1"]
    line.finished("never-1")
    assert started(line) == []


def test_builds_found_running_count_even_beyond_the_caps() -> None:
    line = scheduler(policy(builds=2))
    for number in range(3):
        line.resume(build(f"acme-{number}", number, memory=20))
    line.add(build("bravo-1", 5))
    assert len(line.running) == 3
    assert started(line) == []
    line.finished("acme-0")
    assert line.reason_of("bravo-1") == "all 2 slots are taken"
    line.finished("acme-1")
    assert line.reason_of("bravo-1") == (
        "needs 12.0 GiB of memory; running builds leave 4.0 of 24.0 GiB"
    )
    line.finished("acme-2")
    assert started(line) == ["bravo-1"]


def test_a_draining_scheduler_starts_nothing_and_keeps_its_queue() -> None:
    line = scheduler()
    queue(line, "acme-1", "bravo-1")
    line.take()
    line.drain()
    assert line.is_draining
    assert started(line) == []
    line.add(build("delta-1", 3))
    assert line.reasons() == dict.fromkeys(
        ("bravo-1", "delta-1"), "the agent drains and starts no more builds"
    )
    line.finished("acme-1")
    assert (line.running, line.queued) == ((), ("bravo-1", "delta-1"))


def test_new_limits_hold_at_once_and_stop_nothing() -> None:
    line = scheduler(policy(builds=2, per_customer=2))
    queue(line, "acme-1", "acme-2", "acme-3")
    assert started(line) == ["acme-1", "acme-2"]
    line.reconfigure(policy(builds=1), FakeAdmission())
    assert (line.running, line.max_running) == (("acme-1", "acme-2"), 1)
    line.finished("acme-1")
    assert started(line) == []
    line.reconfigure(policy(builds=2, per_customer=2), FakeAdmission())
    assert started(line) == ["acme-3"]


# Memory and CPUs.


def test_builds_start_while_their_limits_fit_the_budget() -> None:
    line = scheduler(policy(builds=9, memory=23))
    for position, memory in enumerate((8, 7, 16)):
        line.add(build(f"customer{position}-1", position, memory))
    assert started(line) == ["customer0-1", "customer1-1"]
    assert line.reasons() == {
        "customer2-1": "needs 16.0 GiB of memory; running builds leave 8.0 of 23.0 GiB"
    }


def test_a_build_without_a_limit_counts_as_its_even_share() -> None:
    line = scheduler(policy(builds=3, memory=24))
    line.add(build("acme-1", 0, memory=17))
    line.add(build("bravo-1", 1))
    assert started(line) == ["acme-1"]
    assert line.reason_of("bravo-1") == (
        "needs 8.0 GiB of memory; running builds leave 7.0 of 24.0 GiB"
    )


def test_a_build_that_may_use_more_than_there_is_runs_alone() -> None:
    line = scheduler(policy(memory=24))
    line.add(build("acme-1", 0, memory=2))
    line.add(build("bravo-1", 1, memory=64))
    assert started(line) == ["acme-1"]
    assert line.reason_of("bravo-1") == (
        "may use 64.0 GiB of memory, and all builds of this host together 24.0 GiB: it runs alone"
    )
    line.finished("acme-1")
    assert started(line) == ["bravo-1"]
    line.add(build("delta-1", 2, memory=0.5))
    assert started(line) == []


def test_a_build_that_waits_for_its_customer_holds_no_memory() -> None:
    line = scheduler(policy(memory=24))
    line.add(build("acme-1", 0, memory=4))
    line.add(build("acme-2", 1, memory=24))
    line.add(build("bravo-1", 2, memory=20))
    assert started(line) == ["acme-1", "bravo-1"]


def test_small_builds_pass_a_large_one_only_where_both_fit() -> None:
    line = scheduler(policy(builds=9, memory=24))
    line.add(build("acme-1", 0, memory=14))
    line.add(build("bravo-1", 1, memory=16))
    line.add(build("delta-1", 2, memory=6))
    line.add(build("echo-1", 3, memory=2))
    line.add(build("foxtrot-1", 4, memory=0.5))
    assert started(line) == ["acme-1", "delta-1", "echo-1"]
    assert line.reason_of("foxtrot-1") == (
        "bravo-1 has waited longer and gets the next free memory and CPUs"
    )
    line.finished("acme-1")
    assert started(line) == ["bravo-1"]


def test_of_several_large_builds_the_oldest_gets_its_room_first() -> None:
    line = scheduler(policy(builds=9, memory=24))
    line.add(build("acme-1", 0, memory=12))
    line.add(build("bravo-1", 1, memory=20))
    line.add(build("delta-1", 2, memory=14))
    line.add(build("echo-1", 3, memory=8))
    line.add(build("foxtrot-1", 4, memory=4))
    assert started(line) == ["acme-1", "foxtrot-1"]  # echo's would fit beside delta's only
    line.finished("acme-1")
    assert started(line) == ["bravo-1"]


def test_an_endless_stream_of_small_builds_does_not_starve_a_large_one() -> None:
    line = scheduler(policy(builds=8, memory=8))
    for number in range(8):
        line.add(build(f"early{number}-1", number, memory=1))
    running = started(line)
    line.add(build("large-1", 100, memory=6))
    passed: list[str] = []
    for number in range(50):
        line.add(build(f"late{number}-1", 200 + number, memory=1))
        line.finished(running.pop(0))
        new = started(line)
        if "large-1" in new:
            break
        running += new
        passed += new
    assert "large-1" in line.running
    assert number == 7  # as soon as the eight that ran already have ended
    assert passed == ["late0-1", "late1-1"]  # there is room for them beside it


def test_cpus_count_where_the_policy_has_some() -> None:
    line = scheduler(Policy(4, 64 * GIB, cpus=8))
    line.add(build("acme-1", 0, cpus=6))
    line.add(build("bravo-1", 1))
    line.add(build("delta-1", 2, cpus=2.5))
    assert started(line) == ["acme-1", "bravo-1"]
    assert line.reason_of("delta-1") == "needs 2.5 CPUs; running builds leave 0 of 8"
    line.finished("bravo-1")
    assert line.reason_of("delta-1") == "needs 2.5 CPUs; running builds leave 2 of 8"
    line.finished("acme-1")
    assert started(line) == ["delta-1"]


# What the host says.


def test_a_host_without_room_lets_nobody_start_and_is_asked_once_per_round() -> None:
    host = FakeAdmission("only 1.0 GiB are free")
    line = scheduler(policy(builds=2), host)
    queue(line, "acme-1", "bravo-1", "bravo-2")
    assert [line.wants_recheck, started(line), line.wants_recheck] == [False, [], True]
    assert host.asked == ["acme-1"]
    assert line.reasons() == {
        "acme-1": "only 1.0 GiB are free",
        "bravo-1": "only 1.0 GiB are free",
        "bravo-2": "behind bravo-1 of the same customer",
    }
    host.refusal = None
    assert started(line) == ["acme-1", "bravo-1"]
    assert not line.wants_recheck
    assert host.asked == ["acme-1", "acme-1", "bravo-1"]


def test_nothing_waits_for_the_host_when_the_queue_is_empty_or_drains() -> None:
    line = scheduler(admission=FakeAdmission("no room"))
    queue(line, "acme-1", "bravo-1")
    line.take()
    wants = [line.wants_recheck]
    for name in ("acme-1", "bravo-1"):
        line.drop(name)
        wants.append(line.wants_recheck)
    line.add(build("acme-3", 3))
    line.take()
    wants.append(line.wants_recheck)
    line.drain()
    wants.append(line.wants_recheck)
    assert wants == [True, True, False, True, False]


def test_a_host_is_not_asked_when_nothing_could_start() -> None:
    host = FakeAdmission()
    line = scheduler(policy(builds=1), host)
    assert line.take() is None
    queue(line, "acme-1", "acme-2")
    line.take()
    assert line.take() is None
    assert host.asked == ["acme-1"]


def test_before_the_host_was_asked_a_build_is_about_to_start() -> None:
    line = scheduler()
    queue(line, "acme-1")
    assert line.reasons() == {"acme-1": "about to start"}
    line.take()
    assert line.reason_of("acme-1") == line.reason_of("never-1") == ""


def test_a_build_dropped_while_the_host_is_asked_does_not_start() -> None:
    host = FakeAdmission()
    line = scheduler(admission=host)
    queue(line, "acme-1", "acme-2")
    host.meanwhile = lambda: line.drop("acme-1")
    taken = line.take()
    assert taken is not None
    assert taken.build_id == "acme-2"
    assert line.running == ("acme-2",)


def test_a_drain_while_the_host_is_asked_is_obeyed() -> None:
    host = FakeAdmission()
    line = scheduler(admission=host)
    queue(line, "acme-1")
    host.meanwhile = line.drain
    assert line.take() is None
    assert line.queued == ("acme-1",)


def test_new_settings_while_the_host_is_asked_are_asked_too() -> None:
    old, new = FakeAdmission(), FakeAdmission("the new limit")
    line = scheduler(admission=old)
    queue(line, "acme-1")
    old.meanwhile = lambda: line.reconfigure(policy(), new)
    assert line.take() is None
    assert new.asked == ["acme-1"]
    assert line.reason_of("acme-1") == "the new limit"


def test_the_scheduler_answers_while_the_host_takes_its_time() -> None:
    host, asked, go_on = FakeAdmission(), threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert go_on.wait(30)

    host.meanwhile = hang
    line = scheduler(admission=host)
    queue(line, "acme-1", "acme-2")
    thread = threading.Thread(target=line.take)
    thread.start()
    try:
        assert asked.wait(30)
        assert line.queued == ("acme-1", "acme-2")
        assert line.drop("acme-2")
        assert line.reasons() == {"acme-1": "about to start"}
    finally:
        go_on.set()
        thread.join(30)
    assert line.running == ("acme-1",)


# Many.


def test_fifty_builds_of_five_customers_keep_order_and_caps() -> None:
    limits = policy(builds=4, memory=40, acme=2)
    line = scheduler(limits)
    customers = ("acme", "bravo", "delta", "echo", "foxtrot")
    for number in range(50):
        line.add(build(f"{customers[number % 5]}-{number}", number))
    order: list[str] = []
    while line.queued or line.running:
        order += started(line)
        counts = Counter(name.rpartition("-")[0] for name in line.running)
        assert len(line.running) == 4 or not line.queued or len(counts) < 4
        assert all(count <= limits.limit_of(customer) for customer, count in counts.items())
        assert set(line.reasons()) == set(line.queued)
        line.finished(line.running[0])
    assert len(order) == len(set(order)) == 50
    of_customer = defaultdict(list)
    for name in order:
        of_customer[name.rpartition("-")[0]].append(int(name.rpartition("-")[2]))
    assert all(numbers == sorted(numbers) for numbers in of_customer.values())
    # All run equally long, so nobody is passed by more than the customers' caps make others pass.
    assert max(abs(place - int(name.rpartition("-")[2])) for place, name in enumerate(order)) <= 8


def test_many_threads_take_each_build_once_and_never_more_than_may_run() -> None:
    line = scheduler(policy(builds=5, per_customer=2))
    for number in range(200):
        line.add(build(f"customer{number % 7}-{number}", number))
    taken: list[str] = []
    most = 0

    def work() -> None:
        nonlocal most
        while line.queued:
            found = line.take()
            if found is not None:
                most = max(most, len(line.running))
                taken.append(found.build_id)
                line.finished(found.build_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(f"customer{number % 7}-{number}" for number in range(200))
    assert most <= 5
    assert line.running == ()


@pytest.mark.parametrize("customers", [5, 10_000])
def test_ten_thousand_queued_builds_do_not_slow_the_next_one(customers: int) -> None:
    line = scheduler(policy(builds=64, per_customer=64))
    for number in range(10_000):
        line.add(build(f"customer{number % customers}-{number}", number))
    began = time.perf_counter()
    taken = started(line)
    per_build = (time.perf_counter() - began) / len(taken)
    assert taken == [f"customer{number % customers}-{number}" for number in range(64)]
    assert per_build < 0.25  # a few milliseconds; the rest is for a busy machine


def test_one_more_build_is_refused_while_others_fill_the_slots() -> None:
    line = scheduler(policy(builds=2))
    assert line.refusal(0) is None
    assert line.refusal(1) is None
    assert line.refusal(2) == "all 2 slots are taken"
    queue(line, "acme-1", "acme-2")  # one runs, one waits for it
    assert started(line) == ["acme-1"]
    assert line.refusal(0) == "all 2 slots are taken"
    line.finished("acme-1")
    assert line.refusal(0) is None


def test_one_more_build_is_refused_by_the_host_and_by_a_drain() -> None:
    admission = FakeAdmission("only 1 GiB is free")
    line = scheduler(policy(builds=1), admission)
    assert line.refusal(0) == "only 1 GiB is free"
    assert line.refusal(1) == "the only slot is taken"
    line.drain()
    assert "drains" in (line.refusal(0) or "")
