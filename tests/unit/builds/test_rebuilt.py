"""Whether a build asks why its tasks ran again, and what the container that answers may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.bitbake.plan import CONTROL_FILES
from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.builds.observer import SilentObserver
from smidr_ci.builds.pipeline import run_build
from smidr_ci.builds.request import BuildRequest
from smidr_ci.cancel import CancelToken
from smidr_ci.config.models import ProjectConfig
from smidr_ci.reports.escape import inline
from smidr_ci.reports.summary import render_summary, write_summary
from tests.fakes.bench import Bench
from tests.fakes.runtime import FakeContainer, FakeRuntime

REASON = {"recipe": "hello", "task": "do_fetch", "kind": "file", "name": "hello.c"}


@dataclass
class Builds:
    """Builds whose BitBake reports these figures, and whose comparison writes this answer."""

    bench: Bench
    missed: int = 1
    size: int = 100
    answer: Callable[[Path], object] = lambda path: path.write_text(json.dumps(REASON))
    asked: list[FakeContainer] = field(default_factory=list)

    def run(self, image: str = "image") -> BuildRecord:
        config = {"name": "project", "build": {"image": image}}
        host = self.bench.host()
        vars(host)["runtime"] = FakeRuntime(self._program)
        project = self.bench.loaded(ProjectConfig.model_validate(config))
        record = run_build(host, BuildRequest(project=project), CancelToken(), SilentObserver())
        write_summary(host, record)
        host.store.close()
        return record

    def markdown(self, record: BuildRecord) -> str:
        host = self.bench.host()
        try:
            return render_summary(host, record)
        finally:
            host.store.close()

    def _program(self, container: FakeContainer) -> int:
        if container.spec.role not in {"build", "rebuilt"}:
            return 0
        control = container.host_path("/smidr/control")
        if container.spec.role == "rebuilt":
            self.asked.append(container)
            self.answer(control / "rebuilt.jsonl")
        else:
            self._build(container, control)
        return 0

    def _build(self, container: FakeContainer, control: Path) -> None:
        images = container.host_path("/smidr/build") / "tmp" / "deploy" / "images"
        images.mkdir(parents=True)
        (images / "image.wic").write_text("x" * self.size)
        summary = {"wanted": 4, "local": 4 - self.missed, "missed": self.missed}
        events: list[dict[str, Any]] = [{"event": "sstate-summary", **summary}]
        events += [{"event": "task-succeeded", "task": "do_compile"}] * self.missed
        text = "".join(json.dumps(event) + "\n" for event in events)
        (control / CONTROL_FILES["events"]).write_text(text)
        (control / CONTROL_FILES["result"]).write_text('{"exit_code": 0, "phase": "build"}')


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return Builds(Bench(tmp_path / "bench"))


def test_a_first_build_and_one_of_another_target_are_asked_for_no_reason(builds: Builds) -> None:
    builds.run()
    builds.run("other-image")
    assert builds.asked == []


def test_a_build_that_missed_nothing_starts_no_container_for_it(builds: Builds) -> None:
    builds.run()
    builds.missed = 0
    assert builds.run().rebuilt == ()
    assert builds.asked == []


def test_the_reason_is_kept_in_history(builds: Builds) -> None:
    builds.run()
    record = builds.run()
    (reason,) = record.rebuilt
    assert reason["name"] == "hello.c"
    host = builds.bench.host()
    assert host.store.get(record.build_id).rebuilt == record.rebuilt
    host.store.close()


def test_the_comparison_has_no_network_and_may_write_its_answer_alone(builds: Builds) -> None:
    builds.run()
    record = builds.run()
    (container,) = builds.asked
    spec = container.spec
    assert spec.network == "none"
    assert [str(mount.target) for mount in spec.mounts if mount.writable] == ["/smidr/control"]
    folder = builds.bench.host().home.builds / record.build_id
    assert not list(folder.glob(".rebuilt-*"))


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: None,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.write_bytes(b"\xff\n{}\n[1]\n" + b"[" * 70_000),
    ],
)
def test_a_bad_answer_is_none_and_fails_nothing(
    builds: Builds, answer: Callable[[Path], object]
) -> None:
    builds.run()
    builds.answer = answer
    record = builds.run()
    assert (record.state, record.rebuilt) == (BuildState.COMPLETED, ())


def test_the_summary_tells_the_difference_to_the_build_before(builds: Builds) -> None:
    builds.run()
    builds.missed, builds.size = 2, 150
    record = builds.run()
    text = builds.markdown(record)
    assert "2 of 4 objects reused (50 %); previous build: 3 of 4" in text
    assert "* Ran again: hello" in text
    assert "| images/image.wic | 150 B | +50 B |" in text
    kept = builds.bench.host().home.builds / record.build_id / "summary.md"
    assert kept.read_text() == text


def test_a_failure_before_any_log_is_told_in_the_summary(builds: Builds) -> None:
    builds.bench.project.joinpath("core", "oe-init-build-env").unlink()
    builds.bench.project.joinpath("core", "conf", "layer.conf").unlink()
    record = builds.run()
    assert record.state is BuildState.FAILED
    text = builds.markdown(record)
    assert "no cause" not in text
    assert inline(record.failure_message, 2000) in text
