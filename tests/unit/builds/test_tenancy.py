"""What a process that died left is not always whole: how the next one goes on from there.

In each test the process dies while its container runs. See test_crashes.py for all other moments.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.checkpoint import Trail
from smidr_ci.errors import InternalError
from tests.fakes.crashes import CrashSite
from tests.fakes.runtime import FakeContainer


def control_of(container: FakeContainer) -> Path:
    return container.host_path("/smidr/control")


def succeeds(container: FakeContainer) -> int:
    images = container.host_path("/smidr/build") / "tmp" / "deploy" / "images" / "machine"
    images.mkdir(parents=True, exist_ok=True)
    (images / "image.wic").write_text("an image\n")
    (control_of(container) / "result.json").write_text('{"exit_code": 0, "phase": "build"}')
    return 0


def is_killed(_: FakeContainer) -> int:
    """Without a word."""
    return 137


class Left:
    """A build whose process died while its container ran."""

    def __init__(self, root: Path, then: Callable[[FakeContainer], int] = succeeds) -> None:
        self._then = then
        self._died = root / "died"
        self.site = CrashSite(root / "site", self._program)
        assert self.site.begin() is None
        (self.folder,) = (self.site.home / "builds").iterdir()
        (self.container,) = self.site.engine.iterdir()
        (self.workspace,) = self.site.workspaces()

    def _program(self, container: FakeContainer) -> int:
        with (control_of(container) / "console.log").open("a") as out:
            out.write("attempt\n")
        if not self._died.exists():
            self._died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._then(container)

    def go_on(self) -> Mapping[str, Any]:
        """The next process's work; the record."""
        assert self.site.go_on() is not None
        (record,) = self.site.records()
        assert self.site.left() == []
        assert self.site.workspaces() == (
            [Path(record["workspace"])] if record["workspace"] else []
        )
        found: Mapping[str, Any] = record
        return found

    @property
    def console(self) -> str:
        return (self.folder / "control" / "console.log").read_text()


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '{"exit": {"code": 0}}', "[]"])
def test_a_checkpoint_that_can_t_be_read_starts_the_build_anew(left: Left, text: str) -> None:
    (left.folder / "checkpoint.json").write_text(text)
    before = left.container.name
    assert left.go_on()["state"] == "completed"
    assert not (left.site.engine / before).exists()
    assert left.console == "attempt\n"


def test_so_does_one_while_artifacts_were_kept(left: Left) -> None:
    left.site.change(state="extracting-artifacts")
    (left.folder / "checkpoint.json").write_text("another version's")
    record = left.go_on()
    assert record["state"] == "completed"
    assert [stage["name"] for stage in record["stages"]][-1] == "extracting-artifacts"


def test_a_workspace_that_somebody_removed_starts_the_build_anew(left: Left) -> None:
    shutil.rmtree(left.workspace)
    assert left.go_on()["state"] == "completed"
    assert left.console == "attempt\n"


def test_a_container_that_somebody_removed_starts_in_the_same_workspace(left: Left) -> None:
    left.container.unlink()
    mark = left.workspace / "build" / "mark"
    mark.touch()

    def looks(container: FakeContainer) -> int:
        assert container.host_path("/smidr/build/mark").exists()
        return succeeds(container)

    left._then = looks
    assert left.go_on()["state"] == "completed"


def test_a_container_that_was_never_started_makes_room_for_one_that_is(left: Left) -> None:
    raw = json.loads(left.container.read_text())
    left.container.write_text(json.dumps({**raw, "state": "created"}))
    assert left.go_on()["state"] == "completed"


def test_a_result_from_before_is_not_taken_for_this_attempts(tmp_path: Path) -> None:
    left = Left(tmp_path, is_killed)
    (left.folder / "control" / "result.json").write_text('{"exit_code": 0, "phase": "build"}')
    left.container.unlink()
    record = left.go_on()
    assert (record["state"], record["failure_kind"]) == ("failed", "interrupted")


def test_helpers_of_the_dead_process_are_removed(left: Left) -> None:
    raw = json.loads(left.container.read_text())
    raw["spec"]["role"] = "rebuilt"
    (left.site.engine / "helper").write_text(json.dumps(raw))
    assert left.go_on()["state"] == "completed"


def test_an_order_that_is_good_no_more_leaves_nothing(left: Left) -> None:
    left.site.change(config_text="name: [")
    record = left.go_on()
    assert (record["state"], record["failure_kind"]) == ("failed", "config")
    assert record["artifacts"] == []


def test_a_cancel_that_was_written_down_stops_the_container(tmp_path: Path) -> None:
    def waits(container: FakeContainer) -> int:
        assert container.interrupted.is_set(), "nobody asked it to stop"
        (control_of(container) / "result.json").write_text('{"exit_code": 1, "interrupted": true}')
        return 1

    left = Left(tmp_path, waits)
    raw = json.loads(left.container.read_text())
    left.site.change(cancel_reason="Not wanted.")
    left.container.write_text(json.dumps({**raw, "signals": ["SIGTERM"]}))
    record = left.go_on()
    assert (record["state"], record["failure_message"]) == ("cancelled", "Not wanted.")


def test_a_build_that_ends_with_its_process_keeps_no_checkpoint(tmp_path: Path) -> None:
    trail = Trail(tmp_path, is_kept=False)
    with pytest.raises(InternalError):
        trail.require()
    trail.keep(fetch_retries=1)
    trail.forget()
    assert list(tmp_path.iterdir()) == []
