"""What holds of the queue whatever happens, and in whatever order."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from smidr_ci.builds.scheduler import Scheduler
from smidr_ci.builds.slots import Amount, Policy, Waiting
from tests.fakes.admission import FakeAdmission

CUSTOMERS = ("acme", "bravo", "delta", "echo", "foxtrot", "golf")
POLICIES = st.builds(
    Policy,
    max_builds=st.sampled_from([1, 3, 8]),
    memory_bytes=st.just(100),
    cpus=st.sampled_from([None, 8.0]),
    per_customer=st.integers(1, 3),
    customers=st.dictionaries(st.sampled_from(CUSTOMERS), st.integers(1, 4), max_size=2),
)
CUSTOMER = st.sampled_from(CUSTOMERS)
MEMORY = st.sampled_from([None, 10, 20, 30, 50, 60, 70, 90, 130])
CPUS = st.sampled_from([None, None, 0.5, 2.0, 6.0, 16.0])


class Queue(RuleBasedStateMachine):
    """Drives a scheduler, and keeps its own books in the plainest way."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy(max_builds=8, memory_bytes=100)
        self.host = FakeAdmission()
        self.scheduler = Scheduler(self.policy, self.host)
        self.waiting: list[Waiting] = []
        self.running: list[Waiting] = []
        self.beyond: set[str] = set()
        """Ran before the limits were what they are."""
        self.awaited: tuple[str, set[str]] = ("", set())
        """The oldest build that lacks memory or CPUs, and the builds whose end it waits for."""
        self.arrived = 0
        self.is_draining = False

    def new(self, customer: str, memory: int | None, cpus: float | None) -> Waiting:
        self.arrived += 1
        return Waiting(f"{customer}-{self.arrived}", customer, self.arrived, memory, cpus)

    def need(self, builds: list[Waiting]) -> Amount:
        return sum((self.policy.need_of(build) for build in builds), Amount())

    def heads(self) -> list[Waiting]:
        """The oldest build of each customer that may run another one, oldest first."""
        busy = Counter(build.customer for build in self.running)
        found: dict[str, Waiting] = {}
        for build in self.waiting:
            if busy[build.customer] < self.policy.limit_of(build.customer):
                found.setdefault(build.customer, build)
        return list(found.values())

    @rule(orders=st.lists(st.tuples(CUSTOMER, MEMORY, CPUS), min_size=1, max_size=5))
    def order(self, orders: list[tuple[str, int | None, float | None]]) -> None:
        for order in orders:
            build = self.new(*order)
            self.scheduler.add(build)
            self.waiting.append(build)

    @rule(customer=CUSTOMER, memory=MEMORY, cpus=CPUS)
    def find_running(self, customer: str, memory: int | None, cpus: float | None) -> None:
        build = self.new(customer, memory, cpus)
        self.scheduler.resume(build)
        self.running.append(build)
        self.beyond.add(build.build_id)
        self.awaited[1].add(build.build_id)

    @rule()
    def take(self) -> None:
        heads = self.heads()
        while (taken := self.scheduler.take()) is not None:
            self.note_start(taken, heads)
            heads = self.heads()
        self.check_that_none_may_start(heads)

    def note_start(self, taken: Waiting, heads: list[Waiting]) -> None:
        assert not self.is_draining
        assert self.host.refusal is None
        assert taken in heads
        older = heads[: heads.index(taken)]
        self.check_that_it_may_pass(taken, older)
        self.waiting.remove(taken)
        self.running.append(taken)
        if taken.build_id == self.awaited[0]:
            self.awaited = ("", set())
        elif not older:
            self.awaited[1].add(taken.build_id)

    def check_that_none_may_start(self, heads: list[Waiting]) -> None:
        if not heads or self.is_draining or len(self.running) >= self.policy.max_builds:
            return
        if self.host.refusal is not None:
            assert self.scheduler.reason_of(heads[0].build_id)
            return
        # An idle host refuses nobody, and the oldest that lacks room has a known end to wait for.
        assert self.running
        assert not self.need([*self.running, heads[0]]).fits(self.policy.budget)
        name, ends = self.awaited
        running = {build.build_id for build in self.running}
        if name != heads[0].build_id:
            self.awaited = (heads[0].build_id, running)
        else:
            assert ends & running, f"{name} starves"

    def check_that_it_may_pass(self, taken: Waiting, older: list[Waiting]) -> None:
        if not older:
            return
        held = older[0]
        younger = [build for build in self.running if build.position > held.position]
        assert self.need([held, taken, *younger]).fits(self.policy.budget)
        for build in older:
            assert self.scheduler.reason_of(build.build_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        build = data.draw(st.sampled_from(self.running))
        self.scheduler.finished(build.build_id)
        self.running.remove(build)
        self.beyond.discard(build.build_id)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        build = data.draw(st.sampled_from(self.waiting))
        assert self.scheduler.drop(build.build_id)
        self.waiting.remove(build)
        assert not self.scheduler.drop(build.build_id)

    @rule(refusal=st.sampled_from([None, None, "the disk is full"]))
    def change_the_host(self, refusal: str | None) -> None:
        self.host.refusal = refusal

    @precondition(lambda self: self.arrived > 8)
    @rule(policy=POLICIES)
    def change_the_limits(self, policy: Policy) -> None:
        self.policy = policy
        self.scheduler.reconfigure(policy, self.host)
        self.beyond.update(build.build_id for build in self.running)
        self.awaited = ("", set())

    @precondition(lambda self: self.arrived > 12)
    @rule()
    def drain(self) -> None:
        self.scheduler.drain()
        self.is_draining = True

    @invariant()
    def the_books_agree(self) -> None:
        assert self.scheduler.running == tuple(build.build_id for build in self.running)
        assert self.scheduler.queued == tuple(build.build_id for build in self.waiting)
        reasons = self.scheduler.reasons()
        assert tuple(reasons) == self.scheduler.queued
        assert all(reasons.values())
        assert all(reasons[name] == self.scheduler.reason_of(name) for name in reasons)

    @invariant()
    def no_limit_is_passed(self) -> None:
        if self.beyond:
            return
        assert len(self.running) <= self.policy.max_builds
        assert self.need(self.running).fits(self.policy.budget)
        for customer, count in Counter(build.customer for build in self.running).items():
            assert count <= self.policy.limit_of(customer)

    def teardown(self) -> None:
        """Without new orders and trouble everything gets its turn, in each customer's order."""
        if self.is_draining:
            assert self.scheduler.take() is None
            return
        self.host.refusal = None
        last: dict[str, int] = {}
        while self.waiting:
            while (taken := self.scheduler.take()) is not None:
                assert taken.position > last.get(taken.customer, 0)
                last[taken.customer] = taken.position
                self.waiting.remove(taken)
                self.running.append(taken)
            assert self.running, "the rest of the queue never starts"
            self.scheduler.finished(self.running.pop(0).build_id)


Queue.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault
)
TestQueue = Queue.TestCase
