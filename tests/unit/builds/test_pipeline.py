"""How whole builds end: time limits, retention, full disks and what the record says."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.builds.reserve import Reserve
from smidr_ci.cancel import CancelLevel, CancelToken
from smidr_ci.config.models import ProjectConfig
from smidr_ci.containers.runtime import ContainerSpec, Exit, Handle
from smidr_ci.errors import EngineError, FailureKind, HostError
from tests.fakes.bench import Bench
from tests.fakes.disk import fill, small_disk
from tests.fakes.runtime import FakeContainer, FakeEngine, FakeRuntime, Program


def config(**changes: Any) -> ProjectConfig:
    return ProjectConfig.model_validate(
        {"name": "project", "build": {"image": "image"}, "layers": [], **changes}
    )


def answers(code: int = 0, **result: object) -> Program:
    """A driver that leaves an image and says how it ended."""

    def program(container: FakeContainer) -> int:
        images = container.host_path("/smidr/build") / "tmp" / "deploy" / "images" / "machine"
        images.mkdir(parents=True)
        (images / "image.wic").write_text("image")
        answer = {"exit_code": code, "phase": "build", **result}
        control = container.host_path("/smidr/control")
        (control / CONTROL_FILES["result"]).write_text(json.dumps(answer))
        return code

    return program


@dataclass
class Builds:
    """Builds on a bench, each with a "container" of its own."""

    bench: Bench

    def run(
        self,
        program: Program,
        config: ProjectConfig,
        *,
        customer: str = "default",
        cancel: CancelToken | None = None,
        engine: FakeEngine | None = None,
    ) -> BuildRecord:

        def main_process(container: FakeContainer) -> int:
            return program(container) if container.spec.role == "build" else 0

        host = self.host(FakeRuntime(main_process, engine))
        request = BuildRequest(project=self.bench.loaded(config), customer=customer)
        try:
            return run_build(host, request, cancel or CancelToken(), SilentObserver())
        finally:
            host.store.close()

    def host(self, runtime: FakeRuntime | None = None) -> Host:
        host = self.bench.host()
        if runtime is not None:
            vars(host)["runtime"] = runtime
        return host

    def stored(self, build_id: str) -> BuildRecord:
        store = self.host().store
        try:
            return store.get(build_id)
        finally:
            store.close()

    def artifacts(self, record: BuildRecord) -> Path:
        return self.host().artifacts_of(record)


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(Bench(tmp_path / "bench"))


def test_a_driver_that_ran_out_of_time_makes_a_timeout(builds: Builds) -> None:
    record = builds.run(answers(1, interrupted=True, timed_out=True), config())
    assert (record.state, record.failure_kind) == (BuildState.FAILED, FailureKind.TIMEOUT)
    assert "longer than its time limit" in record.failure_message


def test_the_time_limit_reaches_the_driver_in_seconds(builds: Builds) -> None:
    seen: dict[str, Any] = {}

    def program(container: FakeContainer) -> int:
        seen.update(json.loads((container.host_path("/smidr/control") / "plan.json").read_text()))
        return answers()(container)

    builds.run(program, config(advanced={"build_timeout": 2}))
    assert seen["time_limit_s"] == 120.0


def test_a_driver_that_overstays_its_limit_is_killed(builds: Builds) -> None:
    def hangs(container: FakeContainer) -> int:
        while not container.stopped.wait(0.05):
            builds.bench.clock.advance(60)
        return 1

    record = builds.run(hangs, config(advanced={"build_timeout": 1}))
    assert (record.state, record.exit_code) == (BuildState.FAILED, 137)
    assert record.failure_kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("level", [CancelLevel.INTERRUPT, CancelLevel.KILL])
def test_a_cancelled_build_is_no_failed_one(builds: Builds, level: CancelLevel) -> None:
    cancel = CancelToken()
    engine = FakeEngine()

    def waits(container: FakeContainer) -> int:
        cancel.cancel("Somebody asked", level)
        container.stopped.wait()
        return answers(1, interrupted=True)(container)

    record = builds.run(waits, config(), cancel=cancel, engine=engine)
    assert (record.state, record.failure_message) == (BuildState.CANCELLED, "Somebody asked")
    assert (record.findings, record.workspace) == ((), "")
    assert engine.containers == {}


def test_an_engine_that_refuses_is_the_recorded_reason(builds: Builds) -> None:
    engine = FakeEngine(refusal="no such network")
    record = builds.run(answers(), config(), engine=engine)
    assert (record.failure_kind, record.exit_code) == (FailureKind.ENGINE, 4)
    assert "no such network" in builds.stored(record.build_id).failure_message


def test_a_fault_of_ours_is_recorded_and_raised(builds: Builds) -> None:
    class Broken(FakeRuntime):
        def start(self, spec: ContainerSpec) -> Handle:
            if spec.role == "build":
                raise ZeroDivisionError
            return super().start(spec)

    host = builds.host(Broken(lambda _: 0))
    request = BuildRequest(project=builds.bench.loaded(config()))
    with pytest.raises(ZeroDivisionError):
        run_build(host, request, CancelToken(), SilentObserver())
    (record,) = host.store.list()
    host.store.close()
    assert (record.state, record.failure_kind) == (BuildState.FAILED, FailureKind.INTERNAL)


def test_a_lost_engine_ends_the_build_as_failed(builds: Builds) -> None:
    class Forgetful(FakeRuntime):
        def wait(self, handle: Handle, timeout_s: float) -> Exit | None:
            if handle.role == "build":
                raise EngineError("the engine went away")
            return super().wait(handle, timeout_s)

    host = builds.host(Forgetful(lambda _: 0))
    request = BuildRequest(project=builds.bench.loaded(config()))
    record = run_build(host, request, CancelToken(), SilentObserver())
    host.store.close()
    assert (record.state, record.failure_kind) == (BuildState.FAILED, FailureKind.ENGINE)


def test_a_build_that_came_through_at_the_second_try_has_no_error(builds: Builds) -> None:
    tries = []

    def fails_once(container: FakeContainer) -> int:
        tries.append(container)
        if len(tries) > 1:
            return answers()(container)
        console = container.host_path("/smidr/control") / CONTROL_FILES["console"]
        console.write_text(FETCH_FAILURE)
        (console.parent / CONTROL_FILES["result"]).write_text('{"exit_code": 1}')
        return 1

    cancel = InstantToken()
    record = builds.run(fails_once, config(), cancel=cancel)
    # Shorter ones are for a lock that another thread's new process may hold until it execs.
    assert [pause for pause in cancel.waits if pause >= 1] == [10.0]
    assert (record.state, record.findings, len(tries)) == (BuildState.COMPLETED, (), 2)


FETCH_FAILURE = """\
ERROR: remote-1.0-r0 do_fetch: remote: Fetcher failure: Fetch command failed with exit code 128:
fatal: unable to access 'http://127.0.0.1:1/x.git/': The requested URL returned error: 503
ERROR: Task (/smidr/layers/core/remote_1.0.bb:do_fetch) failed with exit code '1'
"""


class InstantToken(CancelToken):
    """Waits for nobody, and remembers how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float, level: CancelLevel = CancelLevel.INTERRUPT) -> bool:
        self.waits.append(seconds)
        return super().wait(0.0, level)


def test_stages_follow_each_other_without_overlap(builds: Builds) -> None:
    record = builds.run(answers(), config())
    assert [stage.name for stage in record.stages] == [
        "preparing",
        "building",
        "extracting-artifacts",
    ]
    for earlier, later in zip(record.stages, record.stages[1:], strict=False):
        assert earlier.ended == later.started
    assert record.stages[-1].ended == record.ended


def test_retention_removes_what_is_older_of_the_same_customer_and_project_only(
    builds: Builds,
) -> None:
    month = config(cache={"retention": 30})
    old = builds.run(answers(), month)
    failed = builds.run(answers(1), month)
    others = [
        builds.run(answers(), config(), customer="other"),
        builds.run(answers(), config(name="second")),
        builds.run(answers(1), config(), customer="other"),
        builds.run(answers(1), config(name="second")),
    ]
    builds.bench.clock.advance(timedelta(days=20).total_seconds())
    young = builds.run(answers(), month)
    assert builds.artifacts(old).is_dir()
    builds.bench.clock.advance(timedelta(days=20).total_seconds())
    newest = builds.run(answers(), month)

    assert not builds.artifacts(old).exists()
    assert not Path(failed.workspace).exists()
    assert builds.stored(failed.build_id).workspace == ""
    assert builds.stored(old.build_id) == old
    assert builds.artifacts(young).is_dir()
    assert builds.artifacts(newest).is_dir()
    for record in others[:2]:
        assert builds.artifacts(record).is_dir()
    for record in others[2:]:
        assert Path(record.workspace).is_dir()


def test_retention_tells_alike_directory_names_apart(builds: Builds) -> None:
    kept = builds.run(answers(1), config(name="b-c"), customer="a")
    builds.bench.clock.advance(timedelta(days=40).total_seconds())
    builds.run(answers(), config(name="c", cache={"retention": 30}), customer="a-b")
    assert Path(kept.workspace).is_dir()


def test_a_reserve_frees_its_space_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        reserve = Reserve(disk)
        reserve.take()
        assert list(disk.iterdir()) == []
        fill(disk)
        with pytest.raises(HostError) as caught:
            Reserve(disk).take()
        assert caught.value.kind is FailureKind.DISK
        reserve.give_back()
        reserve.give_back()
        (disk / "record").write_bytes(bytes(500_000))


def test_changes_on_a_full_disk_reach_the_record_in_the_end(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        builds = Builds(Bench(disk / "bench"))

        def fills(container: FakeContainer) -> int:
            program = answers(1)(container)
            fill(container.host_path("/smidr/build"))
            return program

        record = builds.run(fills, config())
        assert record.state is BuildState.FAILED
        stored = builds.stored(record.build_id)
        assert replace(stored, is_summary=False) == record
        assert stored.ended is not None
