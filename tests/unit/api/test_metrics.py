"""The figures, read back with Prometheus' own parser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smidr_ci.agent.status import AgentStatus, OutboxStatus
from smidr_ci.api.metrics import Metrics
from smidr_ci.api.usage import DirectorySizes, du
from smidr_ci.builds.model import BuildRecord, BuildState, SstateSummary, StageRecord, Work
from smidr_ci.builds.store import BuildStore
from smidr_ci.errors import FailureKind, HostError
from smidr_ci.forges.status import RegistrationStatus
from tests.fakes.clock import FakeClock
from tests.fakes.http_agent import until

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
STATUS = AgentStatus(
    version="1.2.3",
    pid=1,
    started=NOW,
    is_draining=False,
    running=("acme-00000001", "acme-00000002"),
    queued={"acme-00000003": "no slot"},
    max_running=4,
    outbox=(OutboxStatus("gitlab", 3, 1),),
    problems=("x",),
)
DONE = BuildRecord(
    "acme-00000001",
    "acme",
    "router",
    ("image",),
    BuildState.COMPLETED,
    NOW,
    started=NOW + timedelta(seconds=10),
    ended=NOW + timedelta(seconds=100),
    stages=(
        StageRecord("preparing", NOW, NOW + timedelta(seconds=20)),
        StageRecord("building", NOW, NOW + timedelta(seconds=70)),
    ),
    sstate=SstateSummary(wanted=100, local=60, mirrors=20, missed=20, current=5),
)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = BuildStore(folder / "smidr.db")
        self.status = STATUS
        self.failure: HostError | None = None
        self.sizes = DirectorySizes(lambda: {"sstate": folder}, lambda _: 4711, FakeClock())
        directories = {"home": folder, "sstate": folder, "missing": folder / "no"}
        self.metrics = Metrics(self.ask, self.store, lambda: directories, self.sizes)

    def ask(self) -> AgentStatus:
        if self.failure:
            raise self.failure
        return self.status

    def read(self) -> dict[str, dict[tuple[str, ...], float]]:
        text = self.metrics.render().decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_the_agents_state_is_shown_as_it_is_now(bench: Bench) -> None:
    found = bench.read()
    for name, value in (
        ("smidr_queue_length", 1),
        ("smidr_builds_running", 2),
        ("smidr_builds_running_limit", 4),
        ("smidr_draining", 0),
        ("smidr_problems", 1),
        ("smidr_start_time_seconds", NOW.timestamp()),
    ):
        assert found[name] == {(): value}
    assert found["smidr_info"] == {("1.2.3",): 1}
    assert found["smidr_outbox_waiting"] == {("gitlab",): 3}
    assert found["smidr_outbox_given_up"] == {("gitlab",): 1}
    assert found["process_resident_memory_bytes"][()] > 0
    bench.status = replace(STATUS, queued={}, is_draining=True)
    found = bench.read()
    assert found["smidr_queue_length"] == {(): 0}
    assert found["smidr_draining"] == {(): 1}


def test_runners_on_demand_are_counted_by_registration(bench: Bench) -> None:
    plain = RegistrationStatus("attached", "github", "https://github.com/acme", "asking")
    counts = {"starting": 0, "idle": 1, "busy": 2, "wanted": 4, "free": 0}
    lab = replace(plain, name="lab", runners=counts, runner_version="2.340.0")
    bench.status = replace(STATUS, registrations=(plain, lab))
    found = bench.read()
    assert found["smidr_runners"] == {("lab", state): count for state, count in counts.items()}
    assert found["smidr_official_runner_info"] == {("lab", "2.340.0"): 1}


def test_history_is_counted_by_state_and_failure_kind(bench: Bench) -> None:
    bench.store.add(DONE)
    bench.store.add(replace(DONE, build_id="acme-00000002"))
    failed = replace(
        DONE,
        build_id="acme-00000003",
        state=BuildState.FAILED,
        failure_kind=FailureKind.FETCH,
    )
    bench.store.add(failed)
    # Labels are read in the order of their names: failure_kind, state.
    assert bench.read()["smidr_builds"] == {("", "completed"): 2, ("fetch", "failed"): 1}


def test_a_finished_build_is_counted_with_its_stages(bench: Bench) -> None:
    bench.metrics.finished(DONE)
    bench.metrics.finished(
        replace(DONE, state=BuildState.FAILED, failure_kind=FailureKind.BUILD, sstate=None)
    )
    found = bench.read()
    assert found["smidr_builds_finished_total"] == {("", "completed"): 1, ("build", "failed"): 1}
    assert found["smidr_build_stage_seconds_count"] == {("preparing",): 2, ("building",): 2}
    assert found["smidr_build_stage_seconds_sum"] == {("preparing",): 40, ("building",): 140}
    buckets = found["smidr_build_stage_seconds_bucket"]
    assert (buckets["60.0", "building"], buckets["120.0", "building"]) == (0, 2)
    assert found["smidr_build_wait_seconds_sum"] == {(): 20}


def test_a_build_that_never_began_is_counted_too(bench: Bench) -> None:
    bench.metrics.finished(replace(DONE, state=BuildState.CANCELLED, started=None, stages=()))
    found = bench.read()
    assert found["smidr_builds_finished_total"] == {("", "cancelled"): 1}
    assert found["smidr_build_wait_seconds_count"] == {(): 0}


def test_shared_state_is_counted_and_its_reuse_told_per_project(bench: Bench) -> None:
    bench.metrics.finished(DONE)
    bench.metrics.finished(replace(DONE, sstate=SstateSummary(10, 10, 0, 0, 0)))
    found = bench.read()
    assert found["smidr_sstate_objects_total"] == {
        ("wanted",): 110,
        ("local",): 70,
        ("mirror",): 20,
        ("missed",): 20,
        ("current",): 5,
    }
    assert found["smidr_sstate_reuse_ratio"] == {("acme", "router"): 1}


def test_what_was_built_once_for_several_is_counted_once(bench: Bench) -> None:
    shared = replace(DONE, shared_run="acme-000000ff", work=Work(10, 600, 5, 4, 4096))
    for _ in range(3):
        bench.metrics.finished(shared)
    bench.metrics.finished(replace(shared, shared_run=""))
    found = bench.read()
    assert found["smidr_builds_finished_total"] == {("", "completed"): 4}
    assert found["smidr_sstate_objects_total"][("wanted",)] == 200
    assert found["smidr_task_seconds_total"] == {("executed",): 20, ("spared",): 1200}
    assert found["smidr_sstate_restored_bytes_total"] == {(): 8192}


def test_projects_and_calls_do_not_grow_the_number_of_series(bench: Bench) -> None:
    for number in range(500):
        bench.metrics.finished(replace(DONE, project=f"p{number}"))
        bench.metrics.forge_called("gitlab", f"operation-{number}", "ok")
    found = bench.read()
    assert len(found["smidr_sstate_reuse_ratio"]) == 100
    assert ("acme", "p499") in found["smidr_sstate_reuse_ratio"]
    assert len(found["smidr_forge_calls_total"]) == 201
    assert found["smidr_forge_calls_total"]["gitlab", "other", "other"] == 300
    bench.status = replace(
        STATUS, outbox=tuple(OutboxStatus(f"r{number}", 1, 0) for number in range(200))
    )
    waiting = bench.read()["smidr_outbox_waiting"]
    assert (len(waiting), waiting["other",]) == (51, 150)


def test_forge_calls_are_counted_by_outcome(bench: Bench) -> None:
    for outcome in ("ok", "ok", "error"):
        bench.metrics.forge_called("gitlab", "patch-trace", outcome)
    assert bench.read()["smidr_forge_calls_total"] == {
        ("gitlab", "patch-trace", "ok"): 2,
        ("gitlab", "patch-trace", "error"): 1,
    }


def test_free_disk_is_told_once_per_file_system(bench: Bench) -> None:
    found = bench.read()
    assert set(found["smidr_disk_free_bytes"]) == {("home",)}
    assert 0 < found["smidr_disk_free_bytes"]["home",] <= found["smidr_disk_size_bytes"]["home",]


def test_no_label_holds_a_build_id(bench: Bench) -> None:
    bench.store.add(DONE)
    bench.metrics.finished(DONE)
    assert b"acme-0000000" not in bench.metrics.render()


def test_what_can_not_be_read_is_left_out(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.failure = HostError("gone")
    found = bench.read()
    assert "smidr_queue_length" not in found
    assert "smidr_disk_free_bytes" in found
    assert "gone" in caplog.text


def test_sizes_are_measured_in_the_background_and_then_shown(bench: Bench) -> None:
    assert "smidr_cache_size_bytes" not in bench.read()
    until(lambda: bench.read().get("smidr_cache_size_bytes") == {("sstate",): 4711})


def test_sizes_are_measured_seldom_and_never_twice_at_once(tmp_path: Path) -> None:
    clock, begun, may_end = FakeClock(), list[Path](), threading.Event()

    def measure(path: Path) -> int:
        begun.append(path)
        may_end.wait(60)
        clock.advance(100)
        return len(begun)

    sizes = DirectorySizes(lambda: {"a": tmp_path}, measure, clock)
    for _ in range(5):
        assert sizes.known() == {}
    until(lambda: len(begun) == 1)
    may_end.set()
    until(lambda: sizes.known() == {"a": 1})
    clock.advance(4999)
    assert sizes.known() == {"a": 1}
    assert len(begun) == 1
    clock.advance(1)
    sizes.known()
    until(lambda: sizes.known() == {"a": 2})


def test_a_directory_is_measured_with_hard_links_once(tmp_path: Path) -> None:
    assert du(tmp_path / "no") is None
    (tmp_path / "a").write_bytes(b"x" * 1_000_000)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    size = du(tmp_path)
    assert size is not None
    assert 900_000 < size < 1_900_000
