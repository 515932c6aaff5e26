"""A whole step: the action by plain Node against the agent's real HTTP server, without builds."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.security import Security
from smidr_ci.api.tokens import TokenStore
from smidr_ci.bitbake.progress import Progress, SstateSummary
from smidr_ci.bitbake.tasks import RunningTask
from smidr_ci.builds.database import Database
from smidr_ci.builds.model import BuildState
from smidr_ci.cancel import CancelLevel
from smidr_ci.config.api import Api
from smidr_ci.errors import BusyError, ConfigError, FailureKind
from smidr_ci.home import Home
from tests.fakes.http_agent import AnybodyIs, AsUser, HttpAgent, until
from tests.fakes.step_harness import RunningStep, StepResult, Workspace, node

INPUTS = {"config": "smidr.yaml"}


@pytest.fixture(autouse=True)
def _has_node() -> None:
    node()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    (found.checkout / "smidr.yaml").write_text("name: demo\n")
    return found


@pytest.fixture
def home(workspace: Workspace) -> Home:
    return Home(workspace.root / "home" / ".smidr")


@pytest.fixture
def served(home: Home) -> Iterator[HttpAgent]:
    with HttpAgent(home) as agent:
        yield agent


def ordered(served: HttpAgent, step: RunningStep) -> str:
    """The id of the build that the step has ordered."""
    step.wait_for("is queued by the agent")
    return served.agent.store.list()[0].build_id


def build_with(
    served: HttpAgent, workspace: Workspace, log: bytes = b"", inputs: Any = INPUTS, **fields: Any
) -> StepResult:
    """A step whose build ends with these fields of its record."""
    step = workspace.start(inputs)
    build_id = ordered(served, step)
    served.agent.change(build_id, state=BuildState.BUILDING)
    served.log(build_id, log)
    served.agent.change(build_id, **{"state": BuildState.COMPLETED, "exit_code": 0, **fields})
    return step.result()


def finding(**fields: Any) -> dict[str, Any]:
    return {"category": "compile", "severity": "error", "message": "it broke", **fields}


def test_a_build_s_log_outputs_and_summary_reach_the_job(
    served: HttpAgent, workspace: Workspace, home: Home
) -> None:
    step = workspace.start({**INPUTS, "target": "image sdk", "clean": "true"})
    build_id = ordered(served, step)
    served.agent.show(build_id, waiting_for="another build of acme-bsp runs")
    step.wait_for("waiting: another build")
    served.agent.change(build_id, state=BuildState.PREPARING)
    served.agent.show(build_id, notes=("fetching layer core",))
    step.wait_for("fetching layer")
    served.agent.change(build_id, state=BuildState.BUILDING)
    served.log(build_id, b"NOTE: one\nNOTE: tw")
    step.wait_for("NOTE: one")
    served.log(build_id, b"o\nlast")
    files = {"images/a.wic": b"abc", "images/a.txt": b"x"}
    served.leave_artifacts(served.agent.store.get(build_id), files)
    figures = SstateSummary(wanted=8, local=5, mirrors=1, missed=2, current=0)
    served.agent.finish(build_id, sstate=figures)
    result = step.result()

    assert result.code == 0, result.raw
    groups = result.commands.groups
    assert groups["Queued"] == ["waiting: another build of acme-bsp runs"]
    assert groups["Preparing"] == ["fetching layer core"]
    assert groups["Building image sdk"] == ["NOTE: one", "NOTE: two", "last"]
    assert any("images/a.wic" in line for line in groups["Artifacts"])
    folder = home.artifacts / "acme-bsp" / build_id
    assert result.outputs["build-id"] == build_id
    assert result.outputs["result"] == "completed"
    assert result.outputs["artifacts-path"] == str(folder)
    assert sorted(json.loads(result.outputs["images"])) == [
        str(folder / name) for name in sorted(files)
    ]
    assert all(Path(name).is_file() for name in json.loads(result.outputs["images"]))
    assert result.outputs["sstate-reuse"] == "75"
    assert Path(result.outputs["summary-path"]).read_text() == result.summary
    assert "completed" in result.summary
    assert result.environment_files == ""
    order = served.agent.orders[0]
    assert (order.targets, order.clean, order.customer) == (("image", "sdk"), True, "acme-bsp")
    assert order.directory == workspace.checkout
    assert order.ref == "refs/heads/main"
    assert workspace.post(result).commands.shown == []


def test_only_chosen_artifacts_are_images(served: HttpAgent, workspace: Workspace) -> None:
    step = workspace.start({**INPUTS, "artifacts": "images/**/*.wic\n*.manifest\n"})
    build_id = ordered(served, step)
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.leave_artifacts(record, {"images/m/a.wic": b"abc", "a.manifest": b"m", "b.txt": b"x"})
    served.agent.finish(build_id)
    images = json.loads(step.result().outputs["images"])
    assert sorted(Path(name).name for name in images) == ["a.manifest", "a.wic"]


HOSTILE = rb"""
::error::evil
  ::set-output name=x::y
::add-mask::a
::stop-commands::mine
##[group]mine
a ##[add-matcher]/tmp/x
::endgroup::
::pause-logging::
::group::b
"""


def test_no_text_of_a_build_is_a_command(served: HttpAgent, workspace: Workspace) -> None:
    evil = "\n::error::evil\r::add-mask::a\r\n##[error]evil"
    step = workspace.start({**INPUTS, "artifacts": "none"})
    build_id = ordered(served, step)
    served.agent.show(build_id, notes=(evil,), waiting_for=evil)
    record = served.agent.change(build_id, state=BuildState.BUILDING)
    served.log(build_id, HOSTILE + b"\r::error::after a carriage return\rx\x1b[2K::error::z\n")
    served.leave_artifacts(record, {"::error::evil": b"x", "a\n::error::evil": b"y"})
    served.agent.change(
        build_id,
        state=BuildState.FAILED,
        exit_code=1,
        failure_kind=FailureKind.BUILD,
        failure_message=evil,
        findings=(
            finding(recipe=f"r,file=/etc/x{evil}", task=evil, message=evil, hint=evil),
            finding(severity="warning", rule=f"c::x{evil}", file=evil, line=3, layer=evil),
        ),
    )
    result = step.result()
    assert result.code == 1
    names = {item.name for item in result.commands.obeyed}
    assert names <= {"stop-commands", "group", "endgroup", "error", "warning"}
    assert len(result.errors) == len(result.warnings) == 1
    assert set(result.errors[0].properties) == {"title"}
    assert set(result.warnings[0].properties) == {"title"}
    assert "\r" not in result.errors[0].data
    titles = {item.data for item in result.commands.all("group")}
    assert titles <= {"Queued", "Building", "Artifacts"}
    assert set(result.outputs) == {
        "build-id",
        "result",
        "artifacts-path",
        "images",
        "sstate-reuse",
        "summary-path",
    }
    assert result.state["over"] == "true"
    assert "##[" not in result.raw


def test_at_most_ten_errors_and_ten_warnings_are_annotations_the_cause_first(
    served: HttpAgent, workspace: Workspace
) -> None:
    errors = [finding(message=f"error {number}", recipe="busybox") for number in range(25)]
    warnings = [finding(message=f"warning {number}", severity="warning") for number in range(12)]
    result = build_with(
        served,
        workspace,
        state=BuildState.FAILED,
        failure_kind=FailureKind.BUILD,
        findings=tuple(errors + warnings),
    )
    assert [item.data for item in result.errors] == [f"error {number}" for number in range(10)]
    assert len(result.warnings) == 10
    assert result.errors[0].properties["title"] == "compile: busybox"
    assert "17 more findings" in result.text
    assert result.outputs["result"] == "failed"


def test_a_file_is_annotated_only_when_the_workspace_has_it(
    served: HttpAgent, workspace: Workspace
) -> None:
    recipe = workspace.checkout / "layers" / "meta-a" / "recipes" / "a.bb"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("x")
    (workspace.checkout / "layers" / "meta-a" / "link.bb").symlink_to("/etc/passwd")
    (workspace.checkout / "smidr.yaml").write_text(
        "layers:\n  - name: other\n    path: x\n  - {name: meta-a, path: layers/meta-a}\n"
    )
    places: list[dict[str, Any]] = [
        {"layer": "meta-a", "repo_path": "recipes/a.bb", "line": 7, "column": 2},
        {"layer": "meta-a", "repo_path": "link.bb", "line": 7},
        {"layer": "meta-a", "repo_path": "../../smidr.yaml/../../../x", "line": 7},
        {"layer": "core", "repo_path": "layers/meta-a/recipes/a.bb", "line": 7},
        {"layer": "self", "repo_path": "layers/meta-a/recipes/a.bb", "line": 9},
        {"file": str(recipe), "line": 1},
        {"file": "/etc/passwd", "line": 1},
    ]
    result = build_with(
        served,
        workspace,
        state=BuildState.FAILED,
        findings=tuple(finding(**place) for place in places),
        layer_commits={
            "meta-a": "local-1234",
            "core": "1" * 40,
            "self": "0123456789abcdef0123456789abcdef01234567",
        },
    )
    shown = [(item.properties.get("file"), item.properties.get("line")) for item in result.errors]
    own = "layers/meta-a/recipes/a.bb"
    assert shown == [
        (own, "7"),
        (None, None),
        (None, None),
        (None, None),
        (own, "9"),
        (own, "1"),
        (None, None),
    ]
    assert "recipes/a.bb in layer core, line 7" in result.errors[3].data


def test_a_failure_that_no_finding_tells_is_annotated(
    served: HttpAgent, workspace: Workspace
) -> None:
    result = build_with(
        served,
        workspace,
        state=BuildState.FAILED,
        failure_kind=FailureKind.DISK,
        failure_message="the disk is full",
    )
    assert result.code == 1
    (error,) = result.errors
    assert (error.properties["title"], error.data) == ("smidr: disk", "the disk is full")


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1)])
def test_fail_on_says_whether_warnings_fail_the_step(
    served: HttpAgent, workspace: Workspace, fail_on: str, code: int
) -> None:
    result = build_with(
        served, workspace, inputs={**INPUTS, "fail-on": fail_on}, tasks={"warnings": 3}
    )
    assert result.code == code
    assert len(result.errors) == code
    assert result.outputs["result"] == "completed"


def test_a_log_of_megabytes_comes_whole(served: HttpAgent, workspace: Workspace) -> None:
    lines = [f"NOTE: line {number} {'x' * (number % 90)}" for number in range(60_000)]
    result = build_with(served, workspace, log="\n".join(lines).encode() + b"\n")
    assert result.commands.groups["Building"] == lines


def test_lines_come_once_over_restarts_of_the_agent(workspace: Workspace, home: Home) -> None:
    expected: list[str] = []
    step: RunningStep | None = None
    build_id = ""
    for life in range(4):
        with HttpAgent(home) as served:
            if step is None:
                step = workspace.start(INPUTS)
                build_id = ordered(served, step)
                served.agent.change(build_id, state=BuildState.BUILDING)
            # A line that one agent begins is ended by the next one's.
            text = "".join(f"life {life} line {number}\n" for number in range(500)) + "cut "
            served.log(build_id, text.encode())
            expected += text.splitlines()
            step.wait_for(f"life {life} line 499")
            if life == 3:
                served.agent.finish(build_id)
                step.process.wait(60)
    assert step is not None
    result = step.result()
    joined = "\n".join(expected).replace("cut \nlife", "cut life").splitlines()
    assert result.code == 0
    assert [line for line in result.commands.shown if "life" in line] == [
        line for line in joined if "life" in line
    ]


def test_a_log_that_begins_anew_is_shown_anew(served: HttpAgent, workspace: Workspace) -> None:
    step = workspace.start(INPUTS)
    build_id = ordered(served, step)
    served.agent.change(build_id, state=BuildState.BUILDING)
    served.log(build_id, b"first try, a long line that is not repeated\nunfinished")
    step.wait_for("first try")
    served.agent.log_of(build_id).unlink()
    served.log(build_id, b"second try\n")
    step.wait_for("second try")
    served.agent.finish(build_id)
    result = step.result()
    assert result.text.count("second try") == 1
    assert "begins again" in result.text


def test_an_agent_that_stays_away_fails_the_step(workspace: Workspace, home: Home) -> None:
    with HttpAgent(home) as served:
        step = workspace.start(INPUTS, SMIDR_ACTION_RECONNECT_S="1")
        build_id = ordered(served, step)
    result = step.result()
    assert result.code == 1
    assert "does not answer" in result.errors[0].data
    assert result.outputs == {"build-id": build_id}
    assert "over" not in result.state


def test_a_silent_build_shows_where_it_is(served: HttpAgent, workspace: Workspace) -> None:
    step = workspace.start(INPUTS, SMIDR_ACTION_QUIET_S="0.2")
    build_id = ordered(served, step)
    served.agent.change(build_id, state=BuildState.BUILDING)
    task = RunningTask("llvm", "do_compile", 0.0)
    progress = Progress(stage="running", tasks_total=9, tasks_completed=4, running={1: task})
    served.agent.show(build_id, progress=progress)
    step.wait_for("building, 4 of 9 tasks, now llvm:do_compile")
    served.agent.finish(build_id)
    assert step.result().code == 0


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"config": ""}, "config"),
        ({"config": "gone.yaml"}, "config"),
        ({"config": "../outside.yaml"}, "config"),
        ({"config": "smidr.yaml", "fail-on": "x"}, "fail-on"),
        ({"config": "smidr.yaml", "machine": "qemuarm64"}, "machine"),
    ],
)
def test_a_wrong_input_is_named_and_nothing_is_built(
    served: HttpAgent, workspace: Workspace, inputs: dict[str, str], named: str
) -> None:
    result = workspace.run(inputs)
    assert result.code == 1
    (error,) = result.errors
    assert f"input {named}" in error.data
    assert served.agent.orders == []
    assert result.outputs == {}


def test_what_the_agent_refuses_is_told_with_its_hint(
    served: HttpAgent, workspace: Workspace
) -> None:
    served.agent.failure = ConfigError(
        "machin is no key\n::error::evil", where="smidr.yaml:3", hint="machine"
    )
    # The status of the agent, which the step asks for first, is refused alike.
    result = workspace.run(INPUTS)
    assert result.code == 1
    (error,) = result.errors
    assert error.data == "smidr.yaml:3: machin is no key\n::error::evil\nmachine"
    assert error.properties["title"] == "smidr: config"


def test_a_busy_agent_is_waited_for(served: HttpAgent, workspace: Workspace) -> None:
    busy = BusyError("the queue is full")
    busy.retry_after_s = 0.1
    served.agent.is_draining = True
    step = workspace.start(INPUTS)
    step.wait_for("the agent drains")
    served.agent.is_draining = False
    served.agent.finish(ordered(served, step))
    assert step.result().code == 0


def test_a_fork_s_pull_request_is_built_as_a_stranger_s(
    served: HttpAgent, workspace: Workspace
) -> None:
    event = workspace.root / "event.json"
    pull = {"head": {"repo": {"id": 2}}, "base": {"repo": {"id": 1}}}
    event.write_text(json.dumps({"pull_request": pull}))
    step = workspace.start(INPUTS, GITHUB_EVENT_NAME="pull_request", GITHUB_EVENT_PATH=str(event))
    build_id = ordered(served, step)
    served.agent.finish(build_id)
    assert step.result().code == 0
    assert served.agent.orders[0].trust == "untrusted"


def test_a_fork_s_code_is_not_built_with_the_rights_of_the_repository(
    served: HttpAgent, workspace: Workspace
) -> None:
    event = workspace.root / "event.json"
    pull = {"head": {"repo": {"id": 2}}, "base": {"repo": {"id": 1}}}
    event.write_text(json.dumps({"pull_request": pull}))
    given = {"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_EVENT_PATH": str(event)}
    result = workspace.run(INPUTS, **given)
    assert result.code == 1
    assert "code of a fork" in result.errors[0].data
    assert served.agent.orders == []


def test_no_secret_of_the_step_reaches_agent_or_log(
    served: HttpAgent, workspace: Workspace
) -> None:
    (workspace.checkout / "smidr.yaml").write_text("name: ${ACTIONS_RUNTIME_TOKEN} ${SMIDR_OK}\n")
    workspace.environment["SMIDR_OK"] = "fine"
    result = build_with(served, workspace)
    assert served.agent.orders[0].variables["SMIDR_OK"] == "fine"
    assert "nobody-may-see" not in json.dumps(served.agent.orders[0].to_json())
    assert "nobody-may-see" not in result.raw


def test_an_agent_of_another_user_is_named_with_the_way_out(
    workspace: Workspace, home: Home
) -> None:
    with closing(Database(workspace.root / "tokens.db")) as database:
        security = Security(TokenStore(database), Api(), uid=4242)
        with HttpAgent(home, access=AsUser(security, 1000)):
            result = workspace.run(INPUTS)
    assert result.code == 1
    (error,) = result.errors
    assert "another user" in error.properties["title"]
    assert "svc.sh install" in error.data
    assert "SMIDR_HOME" in error.data


def test_a_socket_that_was_named_must_answer(workspace: Workspace, tmp_path: Path) -> None:
    where = tmp_path / "plain.sock"
    os.mknod(where, stat.S_IFSOCK | 0o600)
    step = workspace.start(INPUTS, SMIDR_AGENT_SOCKET=str(where))
    step.process.send_signal(signal.SIGINT)
    result = step.result()
    assert result.code != 0
    assert result.outputs == {}


def test_a_home_with_a_long_path_is_reached(workspace: Workspace) -> None:
    home = Home(workspace.root / ("long-" * 20) / ("name-" * 20))
    home.root.mkdir(parents=True)
    with HttpAgent(home) as served:
        step = workspace.start(INPUTS, SMIDR_HOME=str(home.root))
        served.agent.finish(ordered(served, step))
        assert step.result().code == 0


def test_a_cancelled_step_cancels_the_build_and_waits_for_its_end(
    served: HttpAgent, workspace: Workspace
) -> None:
    step = workspace.start(INPUTS)
    build_id = ordered(served, step)
    step.cancel()
    result = step.result()
    assert result.code == 130
    assert [item[0] for item in served.agent.cancelled] == [build_id]
    assert served.agent.cancelled[0][2] is CancelLevel.INTERRUPT
    assert result.outputs["result"] == "cancelled"
    assert result.state["over"] == "true"


class SlowToStop(HttpAgent):
    """Its builds go on when they are cancelled, until `kill`."""

    def __enter__(self) -> Self:
        super().__enter__()
        asked = self.agent.cancelled
        orderly = self.agent.cancel

        def cancel(build_id: str, reason: str, level: CancelLevel = CancelLevel.INTERRUPT) -> Any:
            if level is CancelLevel.KILL:
                return orderly(build_id, reason, level)
            asked.append((build_id, reason, level))
            return self.agent.store.get(build_id)

        self.agent.__dict__["cancel"] = cancel
        return self


def test_a_build_that_stops_slowly_is_left_to_the_post_step(
    workspace: Workspace, home: Home
) -> None:
    with SlowToStop(home) as served:
        step = workspace.start(INPUTS)
        build_id = ordered(served, step)
        step.cancel()
        assert step.process.returncode == 130, "the runner had to kill it"
        result = step.result()
        assert "over" not in result.state
        post = workspace.post(result)
        assert post.code == 0
        assert [item[2] for item in served.agent.cancelled] == [
            CancelLevel.INTERRUPT,
            CancelLevel.INTERRUPT,
            CancelLevel.KILL,
        ]
        assert f"Build {build_id} is over: cancelled." in post.text


def test_the_post_of_a_step_that_was_killed_cancels_its_build(
    served: HttpAgent, workspace: Workspace
) -> None:
    step = workspace.start(INPUTS)
    build_id = ordered(served, step)
    step.kill()
    post = workspace.post(step.result())
    assert post.code == 0
    assert served.agent.store.get(build_id).state is BuildState.CANCELLED


def test_a_wish_to_upload_that_can_t_be_met_is_told(
    served: HttpAgent, workspace: Workspace
) -> None:
    step = workspace.start({**INPUTS, "upload": "true"})
    build_id = ordered(served, step)
    served.leave_artifacts(served.agent.store.get(build_id), {"a.wic": b"abc"})
    served.agent.finish(build_id)
    result = step.result()
    assert result.code == 0
    assert "actions/upload-artifact" in result.warnings[0].data


def test_without_artifacts_and_summary_a_build_is_what_it_is(
    workspace: Workspace, home: Home
) -> None:
    caller = Caller("somebody", Scope.BUILD, is_local=True)
    with HttpAgent(home, access=AnybodyIs(caller)) as served:
        step = workspace.start(INPUTS)
        build_id = ordered(served, step)
        served.agent.change(build_id, state=BuildState.BUILDING)
        manifest = home.artifacts / "acme-bsp" / build_id
        manifest.mkdir(parents=True)
        (manifest / "manifest.json").write_text("no JSON")
        served.agent.finish(build_id)
        result = step.result()
    assert result.outputs["result"] == "completed"
    assert re.match(r"[a-z]", result.outputs["build-id"])
    until(lambda: step.process.returncode is not None)
