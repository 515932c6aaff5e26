"""What must reach somebody else does: in order, once, after any crash."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from smidr_ci.agent.deliveries import DeliveryStore, next_for
from smidr_ci.agent.outbox import Outbox, Patience
from smidr_ci.agent.status import OutboxStatus
from smidr_ci.builds.database import Database
from smidr_ci.builds.tables import outbox as rows
from smidr_ci.errors import EngineError, InternalError
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from tests.fakes.child import child, kill, line_from
from tests.fakes.clock import FakeClock
from tests.fakes.disk import fill, small_disk
from tests.fakes.receiver import FakeReceiver

TIMEOUT_S = 30.0
DOWN = RetryLater("down")


class Site:
    """An outbox on a disk, with a receiver that serves all names that begin with `a`."""

    def __init__(self, root: Path) -> None:
        self.path = root / "smidr.db"
        self.clock = FakeClock()
        self.database = Database(self.path)
        self.receiver = FakeReceiver()
        self.outbox = self.make()

    def make(self, patience: Patience | None = None, max_threads: int = 4) -> Outbox:
        made = Outbox(
            self.database, self.clock, patience, max_threads=max_threads, jitter=lambda: 1.0
        )
        made.register("a", self.receiver)
        self.outbox = made
        return made

    def put(self, receiver: str, *keys: str, kind: str = "status", **more: Any) -> None:
        for key in keys:
            assert self.outbox.put(receiver, key, kind, {"key": key}, **more)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.outbox.wake()

    def states(self) -> dict[str, str]:
        with self.database.reading() as connection:
            return {row.key: row.state for row in connection.execute(rows.select())}

    def status(self, receiver: str) -> OutboxStatus:
        (found,) = [item for item in self.outbox.status() if item.receiver == receiver]
        return found

    def settle(self) -> None:
        """Until each receiver has all, or a time for its next try."""
        self.outbox.flush(TIMEOUT_S, retry=False)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.outbox.stop(TIMEOUT_S)
    made.database.close()


def outbox_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "outbox"]


def wait_for_threads(count: int) -> None:
    for thread in outbox_threads() * 1000:
        if len(outbox_threads()) > count:
            thread.join(0.01)
    assert len(outbox_threads()) == count


def test_a_delivery_arrives_with_all_that_was_put(site: Site) -> None:
    site.outbox.start()
    payload = {"state": "success", "nested": [1, None, "ü"]}
    assert site.outbox.put("a:1", "k1", "status", payload, build_id="acme-00000001")
    assert site.outbox.flush(TIMEOUT_S)
    (tried,) = site.receiver.tries
    assert (tried.receiver, tried.key, tried.kind) == ("a:1", "k1", "status")
    assert (tried.payload, tried.build_id) == (payload, "acme-00000001")
    assert (tried.attempt, tried.is_retry, tried.created) == (1, False, site.clock.now())
    assert site.states() == {"k1": "delivered"}
    assert site.outbox.status() == ()


def test_a_key_is_delivered_once_however_often_it_is_put(site: Site) -> None:
    site.outbox.start()
    assert site.outbox.put("a:1", "k1", "status", {})
    assert not site.outbox.put("a:1", "k1", "status", {"other": 1})
    assert site.outbox.flush(TIMEOUT_S)
    assert not site.outbox.put("a:1", "k1", "status", {})
    assert site.outbox.put("a:2", "k1", "status", {})
    assert site.outbox.flush(TIMEOUT_S)
    assert sorted(site.receiver.arrived) == [("a:1", "k1"), ("a:2", "k1")]


def test_what_was_put_before_the_start_goes_out_first_and_in_order(site: Site) -> None:
    site.put("a:1", *"123")
    site.outbox.start()
    site.put("a:1", *"456")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("a:1") == list("123456")


def test_a_failing_head_blocks_its_receiver_and_no_other(site: Site) -> None:
    site.receiver.prepare("a:sick", DOWN)
    site.outbox.start()
    site.put("a:sick", "1", "2", "3")
    site.receiver.wait_for_tries(1)
    site.put("a:well", "1", "2", "3")
    site.receiver.wait_for_arrivals(3)
    assert site.receiver.arrived == [("a:well", key) for key in "123"]
    site.settle()
    site.pass_time(1.0)
    site.receiver.wait_for_arrivals(6)
    assert site.receiver.keys("a:sick") == ["1", "2", "3"]


def test_one_receiver_is_served_by_one_thread_and_several_side_by_side(site: Site) -> None:
    meet = threading.Barrier(4)
    for number in range(4):
        site.receiver.prepare(f"a:{number}", lambda _: meet.wait(TIMEOUT_S))
    site.outbox.start()
    for number in range(4):
        site.put(f"a:{number}", "1", "2", "3")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.most_at_once == 4
    assert all(site.receiver.keys(f"a:{number}") == ["1", "2", "3"] for number in range(4))


def test_never_more_threads_than_allowed(site: Site) -> None:
    site.make(max_threads=2)
    gate = threading.Event()
    for number in range(10):
        site.receiver.prepare(f"a:{number}", lambda _: gate.wait(TIMEOUT_S))
    site.outbox.start()
    for number in range(10):
        site.put(f"a:{number}", "1")
    site.receiver.wait_for_tries(2)
    assert len(outbox_threads()) == 2
    gate.set()
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.most_at_once == 2


def test_an_idle_outbox_has_no_thread_and_one_that_waits_has_one(site: Site) -> None:
    site.outbox.start()
    assert outbox_threads() == []
    for name in ("a:1", "a:2", "a:3"):
        site.receiver.prepare(name, DOWN)
        site.put(name, "1")
    site.settle()
    wait_for_threads(1)
    site.pass_time(10)
    assert site.outbox.flush(TIMEOUT_S)
    wait_for_threads(0)


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success(site: Site) -> None:
    site.make(Patience(first_pause_s=1, longest_pause_s=8))
    site.receiver.prepare("a:1", *[DOWN] * 6)
    site.outbox.start()
    site.put("a:1", "1", "2")
    for number, pause_s in enumerate((1, 2, 4, 8, 8, 8), start=1):
        site.settle()
        assert len(site.receiver.tries) == number
        assert site.status("a:1").next_try == site.clock.now() + timedelta(seconds=pause_s)
        site.pass_time(pause_s - 0.01)
        assert len(site.receiver.tries) == number
        site.pass_time(0.011)
    site.receiver.wait_for_arrivals(2)
    site.receiver.prepare("a:1", DOWN)
    site.put("a:1", "3")
    site.settle()
    assert site.status("a:1").next_try == site.clock.now() + timedelta(seconds=1)


def test_jitter_spreads_the_tries(site: Site) -> None:
    numbers = iter((0.0, 0.5, 1.0))
    made = Outbox(site.database, site.clock, Patience(10.0), jitter=lambda: next(numbers))
    made.register("a", site.receiver)
    site.outbox = made
    made.start()
    pauses = []
    for name in ("a:1", "a:2", "a:3"):
        site.receiver.prepare(name, DOWN)
        site.put(name, "1")
        site.settle()
        next_try = site.status(name).next_try
        assert next_try is not None
        pauses.append((next_try - site.clock.now()).total_seconds())
    assert pauses == [5.0, 7.5, 10.0]


@pytest.mark.parametrize(("wish", "pause"), [(30.0, 30.0), (-5.0, 0.0), (10.0**9, 3600.0)])
def test_a_receivers_own_wish_for_a_pause_is_heard_within_reason(
    site: Site, wish: float, pause: float
) -> None:
    made = Outbox(site.database, site.clock, Patience(longest_pause_s=5), jitter=lambda: 0.5)
    made.register("a", site.receiver)
    site.outbox = made
    site.receiver.prepare("a:1", RetryLater("too many requests", after_s=wish))
    made.start()
    site.put("a:1", "1")
    site.settle()
    expected = site.clock.now() + timedelta(seconds=pause + 0.5)
    assert site.status("a:1").next_try == expected
    assert site.status("a:1").last_error == "too many requests"


def test_what_is_given_up_stays_visible_and_lets_the_next_pass(site: Site) -> None:
    site.receiver.prepare("a:1", GiveUp("the job is gone\x1b[31m"))
    site.outbox.start()
    site.put("a:1", "1", "2")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.states() == {"1": "given-up", "2": "delivered"}
    assert site.outbox.status() == (OutboxStatus("a:1", 0, 1, "the job is gone"),)


def test_other_errors_are_tried_again_and_shown(site: Site) -> None:
    site.receiver.prepare("a:1", EngineError("no route", where="https://a"), ValueError("a bug"))
    site.outbox.start()
    site.put("a:1", "1")
    site.settle()
    assert site.status("a:1").last_error == "https://a: no route"
    site.pass_time(1)
    site.settle()
    assert site.status("a:1").last_error == "ValueError: a bug"
    assert site.outbox.flush(TIMEOUT_S)
    assert [tried.is_retry for tried in site.receiver.tries] == [False, True, True]


def test_after_so_many_tries_a_delivery_is_given_up(site: Site) -> None:
    site.make(Patience(max_attempts=3))
    site.receiver.prepare("a:1", *[DOWN] * 3)
    site.put("a:1", "1", "2")
    site.outbox.start()
    for pause_s in (1, 2):
        site.settle()
        site.pass_time(pause_s)
    site.settle()
    assert site.states() == {"1": "given-up", "2": "waiting"}
    assert site.outbox.flush(TIMEOUT_S)
    assert site.states() == {"1": "given-up", "2": "delivered"}
    assert site.status("a:1").last_error == "given up after 3 tries in 0 h: down"


def test_what_is_too_old_goes_when_its_receiver_fails_and_not_otherwise(site: Site) -> None:
    site.put("a:dead", "1", "2")
    site.put("a:well", "1")
    site.clock.advance(timedelta(days=4).total_seconds())
    site.put("a:dead", "3")
    site.receiver.prepare("a:dead", DOWN)
    site.outbox.start()
    site.settle()
    assert (site.status("a:dead").waiting, site.status("a:dead").given_up) == (1, 2)
    assert site.receiver.keys("a:well") == ["1"]
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("a:dead") == ["3"]


def test_rows_for_nobody_wait_and_are_seen_until_somebody_registers(site: Site) -> None:
    site.put("b:1", "1")
    site.outbox.start()
    site.put("b:1", "2")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.status("b:1") == OutboxStatus("b:1", 2, 0, "nobody is registered for this receiver")
    site.outbox.register("b:", site.receiver)
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("b:1") == ["1", "2"]
    site.outbox.unregister("b:")
    site.put("b:1", "3")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.status("b:1").waiting == 1


def test_the_longest_prefix_serves(site: Site) -> None:
    special = FakeReceiver()
    site.outbox.register("a:special", special)
    site.outbox.start()
    site.put("a:special:1", "1")
    site.put("a:spec", "1")
    assert site.outbox.flush(TIMEOUT_S)
    assert special.arrived == [("a:special:1", "1")]
    assert site.receiver.arrived == [("a:spec", "1")]


def test_a_newer_status_takes_the_place_of_those_that_wait(site: Site) -> None:
    site.put("a:1", "running", "half", supersedes=True)
    site.put("a:1", "log", kind="trace")
    site.put("a:2", "running", supersedes=True)
    site.put("a:1", "success", supersedes=True)
    site.outbox.start()
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("a:1") == ["log", "success"]
    assert site.receiver.keys("a:2") == ["running"]


def test_what_is_being_delivered_is_not_superseded(site: Site) -> None:
    gate = threading.Event()
    site.receiver.prepare("a:1", lambda _: gate.wait(TIMEOUT_S))
    site.outbox.start()
    site.put("a:1", "one")
    site.receiver.wait_for_tries(1)
    site.put("a:1", "two", "three", "four", supersedes=True)
    assert site.states() == {
        "one": "sending",
        "two": "superseded",
        "three": "superseded",
        "four": "waiting",
    }
    assert site.status("a:1").waiting == 2
    gate.set()
    assert site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("a:1") == ["one", "four"]
    assert not site.outbox.put("a:1", "two", "status", {}), "it was superseded, not forgotten"


def test_a_superseded_head_keeps_its_receivers_pause(site: Site) -> None:
    site.receiver.prepare("a:1", RetryLater("slow down", after_s=60))
    site.outbox.start()
    site.put("a:1", "one")
    site.settle()
    site.put("a:1", "two", supersedes=True)
    site.pass_time(50)
    assert len(site.receiver.tries) == 1
    site.pass_time(12)
    site.receiver.wait_for_arrivals(1)
    assert site.receiver.keys("a:1") == ["two"]


def test_stop_raises_the_token_of_what_is_being_delivered(site: Site) -> None:
    def upload(delivery: Delivery) -> None:
        assert delivery.cancel.wait(TIMEOUT_S)
        raise RetryLater("stopped in the middle")

    site.receiver.prepare("a:1", upload)
    site.outbox.start()
    site.put("a:1", "1", "2")
    site.receiver.wait_for_tries(1)
    assert site.outbox.stop(TIMEOUT_S)
    assert site.states() == {"1": "waiting", "2": "waiting"}
    site.outbox.start()
    site.pass_time(1)
    site.receiver.wait_for_arrivals(2)
    assert [tried.is_retry for tried in site.receiver.tries] == [False, True, False]


def test_stop_does_not_wait_for_ever_for_a_deliverer_that_hangs(site: Site) -> None:
    gate = threading.Event()
    site.receiver.prepare("a:1", lambda _: gate.wait(TIMEOUT_S))
    site.outbox.start()
    site.put("a:1", "1")
    site.receiver.wait_for_tries(1)
    assert not site.outbox.stop(0.01)
    with pytest.raises(InternalError, match="runs already"):
        site.outbox.start()
    gate.set()
    assert site.outbox.stop(TIMEOUT_S)
    assert site.states() == {"1": "delivered"}


def test_flush_returns_when_what_is_left_has_failed_once_more(site: Site) -> None:
    site.receiver.prepare("a:dead", *[DOWN] * 10)
    site.outbox.start()
    site.put("a:dead", "1", "2")
    site.put("a:well", "1", "2")
    assert not site.outbox.flush(TIMEOUT_S)
    assert site.receiver.keys("a:well") == ["1", "2"]
    before = len(site.receiver.tries)
    assert not site.outbox.flush(TIMEOUT_S)
    assert len(site.receiver.tries) == before + 1
    assert not Outbox(site.database, site.clock).flush(TIMEOUT_S), "it was never started"


def test_a_clock_set_back_does_not_hold_a_delivery_for_days(site: Site) -> None:
    site.put("a:1", "1")
    with site.database.writing() as connection:
        ahead = site.clock.now() + timedelta(days=30)
        connection.execute(rows.update().values(due=ahead, attempts=1))
    site.outbox.start()
    site.pass_time(3600)
    site.receiver.wait_for_arrivals(1)
    assert site.receiver.tries[0].is_retry


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"payload": {"x": "y" * (256 * 1024)}}, "262"),
        ({"payload": {"x": object()}}, "no JSON"),
        ({"payload": {"x": float("nan")}}, "no JSON"),
        ({"key": ""}, "key"),
        ({"key": "k" * 256}, "key"),
        ({"receiver": "r" * 256}, "receiver"),
        ({"kind": "k" * 65}, "kind"),
    ],
)
def test_what_can_not_be_stored_is_refused(site: Site, change: dict[str, Any], match: str) -> None:
    arguments = {"receiver": "a:1", "key": "1", "kind": "status", "payload": {}} | change
    with pytest.raises(InternalError, match=match):
        site.outbox.put(**arguments)
    assert site.states() == {}


def test_old_rows_are_trimmed_and_open_ones_stay(site: Site) -> None:
    site.receiver.prepare("a:1", GiveUp("gone"))
    site.outbox.start()
    site.put("a:1", "given-up", "done")
    site.put("b:1", "nobody's", build_id="acme-00000001")
    assert site.outbox.flush(TIMEOUT_S)
    assert site.outbox.open_builds() == {"acme-00000001"}
    assert site.outbox.trim() == 0
    site.clock.advance(timedelta(days=8).total_seconds())
    assert site.outbox.trim() == 1
    assert site.states() == {"given-up": "given-up", "nobody's": "given-up"}
    assert site.outbox.open_builds() == frozenset()
    site.clock.advance(timedelta(days=31).total_seconds())
    assert site.outbox.trim() == 2
    assert site.states() == {}


CRASH = """
import os, sys, threading
from pathlib import Path
from smidr_ci.agent.outbox import Outbox
from smidr_ci.builds.database import Database
from smidr_ci.clock import SystemClock

class Receiver:
    def deliver(self, delivery):
        with open(sys.argv[2], "a") as file:
            print(delivery.key, delivery.is_retry, file=file, flush=True)
        if delivery.key == sys.argv[3]:
            print("arrived", flush=True)
            threading.Event().wait()

box = Outbox(Database(Path(sys.argv[1])), SystemClock())
box.register("a", Receiver())
box.start()
for number in range(5):
    box.put("a:1", str(number), "status", {}, build_id=None)
threading.Event().wait()
"""


@pytest.mark.parametrize("last", ["0", "2", "4"])
def test_killed_between_arrival_and_mark_it_is_delivered_again_as_a_retry(
    site: Site, tmp_path: Path, last: str
) -> None:
    arrived = tmp_path / "arrived"
    with child(CRASH, site.path, arrived, last) as process:
        assert line_from(process) == "arrived"
        # All five are stored by then, or the next process puts them again.
        kill(process)
    done = arrived.read_text().splitlines()
    assert done == [f"{number} False" for number in range(int(last) + 1)]
    site.outbox.start()
    for number in range(5):
        site.outbox.put("a:1", str(number), "status", {})
    assert site.outbox.flush(TIMEOUT_S)
    again = [(tried.key, tried.is_retry) for tried in site.receiver.tries]
    assert again == [(last, True), *((str(number), False) for number in range(int(last) + 1, 5))]


RUN = """
import sys, threading
from pathlib import Path
from smidr_ci.agent.outbox import Outbox
from smidr_ci.builds.database import Database
from smidr_ci.clock import SystemClock

class Receiver:
    def deliver(self, delivery):
        with open(sys.argv[2], "a") as file:
            print(delivery.receiver, delivery.key, delivery.is_retry, file=file, flush=True)

box = Outbox(Database(Path(sys.argv[1])), SystemClock())
box.register("a", Receiver())
box.start()
for number in range(100):
    for receiver in ("a:1", "a:2", "a:3"):
        box.put(receiver, str(number), "status", {})
    if number % 10 == 0:
        print(number, flush=True)
print("flushed", box.flush(60), flush=True)
"""


def test_killed_at_any_moment_all_arrives_in_order_and_doubles_are_marked(
    site: Site, tmp_path: Path
) -> None:
    arrived, chance = tmp_path / "arrived", random.Random(7)
    for _ in range(8):
        with child(RUN, site.path, arrived) as process:
            for _ in range(chance.randint(1, 9)):
                line_from(process)
            kill(process)
    with child(RUN, site.path, arrived) as process:
        while (line := line_from(process)) and not line.startswith("flushed"):
            pass
        assert line == "flushed True"
    for receiver in ("a:1", "a:2", "a:3"):
        seen: list[int] = []
        for name, key, is_retry in map(str.split, arrived.read_text().splitlines()):
            if name != receiver:
                continue
            if int(key) in seen:
                assert is_retry == "True"
                assert int(key) == seen[-1], "only the last one can come twice"
            else:
                seen.append(int(key))
        assert seen == list(range(100))


def test_threads_that_put_at_once_lose_nothing_and_keep_their_order(site: Site) -> None:
    site.outbox.start()

    def put_many(writer: int) -> None:
        for number in range(25):
            site.put(f"a:{writer % 4}", f"{writer}-{number:02}")

    writers = [threading.Thread(target=put_many, args=(writer,)) for writer in range(8)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join(TIMEOUT_S)
    assert site.outbox.flush(TIMEOUT_S)
    assert len(site.receiver.arrived) == 200
    for writer in range(8):
        own = [key for _, key in site.receiver.arrived if key.startswith(f"{writer}-")]
        assert own == [f"{writer}-{number:02}" for number in range(25)]


def test_what_arrived_is_not_sent_again_when_the_disk_can_not_take_the_mark(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        site = Site(disk)
        are_put = threading.Event()

        def fill_later(_: object) -> None:
            assert are_put.wait(TIMEOUT_S)
            fill(disk)

        site.receiver.prepare("a:1", fill_later)
        site.outbox.start()
        # A page that the log has no room for any more.
        site.put("a:1", "1", "2")
        are_put.set()
        site.receiver.wait_for_tries(1)
        site.settle()
        assert site.receiver.keys("a:1") == ["1"]
        (disk / "filler").unlink()
        site.pass_time(600)
        assert site.outbox.flush(TIMEOUT_S)
        assert site.receiver.keys("a:1") == ["1", "2"]
        assert site.states() == {"1": "delivered", "2": "delivered"}
        assert site.outbox.stop(TIMEOUT_S)
        site.database.close()


def test_with_ten_thousand_rows_waiting_nothing_is_scanned(site: Site) -> None:
    created = site.clock.now()
    with site.database.writing() as connection:
        connection.execute(
            rows.insert(),
            [
                {
                    "receiver": f"b:{number % 10}",
                    "key": str(number),
                    "kind": "trace",
                    "payload": {},
                    "created": created,
                    "due": created,
                    "state": "waiting",
                    "attempts": 0,
                    "last_error": "",
                }
                for number in range(10_000)
            ],
        )
    statements = recorded(lambda: site.put("b:1", "new", supersedes=True))
    statements += recorded(lambda: DeliveryStore(site.database, site.clock).begin("b:1"))
    assert len(statements) >= 5
    for statement, parameters in statements:
        for step in plan_of(site, statement, parameters):
            assert "SCAN" not in step, statement
            assert "TEMP B-TREE" not in step, statement
    assert "outbox_by_receiver (state=? AND receiver=?)" in str(plan_of_query(site))


def recorded(act: Callable[[], object]) -> list[tuple[str, Any]]:
    """The statements on the outbox that an act executes."""
    seen: list[tuple[str, Any]] = []

    def note(_c: object, _cu: object, statement: str, parameters: Any, *_: object) -> None:
        if "outbox" in statement:
            seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return seen


def plan_of(site: Site, statement: str, parameters: Any) -> list[str]:
    with site.database.reading() as connection:
        found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [str(row.detail) for row in found]


def plan_of_query(site: Site) -> list[str]:
    compiled = next_for("b:1").compile(compile_kwargs={"literal_binds": True})
    with site.database.reading() as connection:
        found = connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))
        return [str(row.detail) for row in found]
