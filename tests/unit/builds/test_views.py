"""Records and views keep everything on the way through JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest

from smidr_ci.agent.status import AgentStatus, OutboxStatus
from smidr_ci.bitbake.progress import Progress, RunningTask, SstateSummary, TaskFailure
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState, StageRecord, Work
from smidr_ci.builds.service import BuildView, Note
from smidr_ci.builds.views import (
    from_plain,
    plain,
    record_as_dict,
    record_from_dict,
    record_summary,
    view_as_dict,
    view_from_dict,
)
from smidr_ci.errors import FailureKind

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
FULL = BuildRecord(
    build_id="acme-0000000f",
    customer="acme",
    project="router",
    targets=("core-image", "mc:x:core-image"),
    state=BuildState.FAILED,
    created=NOW,
    config_text="name: ü\n",
    config_path="/srv/smidr.yaml",
    description="The router of floor 3",
    requested_by="ann",
    started=NOW,
    ended=NOW,
    exit_code=1,
    failure_kind=FailureKind.FETCH,
    failure_message="do_fetch",
    image="sha256:1",
    layer_commits=MappingProxyType({"poky": "a" * 40}),
    stages=(StageRecord("preparing", NOW, NOW), StageRecord("building", NOW)),
    sstate=SstateSummary(5, 4, 0, 1, 0),
    tasks={"total": 7},
    findings=({"recipe": "zlib", "line": 3, "where": None, "more": [1, {"a": True}]},),
    artifacts=(ArtifactRecord("images/a", 3, "b" * 64),),
    rebuilt=({"task": "a:do_b"},),
    warm_from="acme-00000000",
    shared_run="acme-00000001",
    work=Work(1.5, 60.0, 3, 2, 4096),
    workspace="/w/1",
    owner_pid=42,
    is_resumable=True,
    cancel_reason="why not",
    order={"directory": "/srv", "clean": False},
)
VIEW = BuildView(
    version=7,
    record=FULL,
    progress=Progress(
        phase="build",
        running=MappingProxyType({31: RunningTask("zlib", "do_compile", 1.5, "x")}),
        sstate=SstateSummary(1, 2, 3, 4, 5),
        failures=(TaskFailure("do_compile", "/a.bb", exit_code=1),),
        errors=("one",),
    ),
    notes=(Note(1, "a"), Note(2, "b")),
    waiting_for="a slot",
)


def through_json(value: object) -> dict[str, object]:
    back = json.loads(json.dumps(value))
    assert isinstance(back, dict)
    return back


def test_a_record_comes_back_whole() -> None:
    unset = {item.name for item in fields(FULL) if not getattr(FULL, item.name)}
    assert unset == {"is_summary"}
    assert record_from_dict(through_json(record_as_dict(FULL))) == replace(
        FULL, layer_commits=dict(FULL.layer_commits)
    )


def test_an_empty_record_comes_back() -> None:
    empty = BuildRecord("a-00000001", "a", "p", (), BuildState.QUEUED, NOW)
    assert record_from_dict(through_json(record_as_dict(empty))) == empty


def test_a_summary_comes_back_as_one() -> None:
    found = record_from_dict(through_json(record_summary(FULL)))
    assert found.is_summary
    assert (found.build_id, found.state, found.created) == (FULL.build_id, FULL.state, NOW)
    assert found.config_text == ""


def test_a_view_comes_back_with_its_progress() -> None:
    found = view_from_dict(through_json(view_as_dict(VIEW)))
    assert found == VIEW
    assert found.progress is not None
    assert list(found.progress.running) == [31]


def test_an_agents_state_comes_back() -> None:
    status = AgentStatus(
        "1.2", 3, NOW, True, ("a",), {"b": "c"}, 4, outbox=(OutboxStatus("g", 1, 2, "e", NOW),)
    )
    assert from_plain(AgentStatus, through_json(plain(status))) == status


def test_what_a_newer_agent_adds_is_passed_over() -> None:
    raw = {**record_as_dict(FULL), "colour": "blue"}
    assert record_from_dict(raw).build_id == FULL.build_id


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "asleep"},
        {"created": "yesterday"},
        {"created": 5},
        {"targets": "a"},
        {"targets": [1]},
        {"exit_code": "1"},
        {"exit_code": True},
        {"is_resumable": 1},
        {"stages": [{"name": "x"}]},
        {"stages": ["x"]},
        {"layer_commits": []},
    ],
)
def test_another_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        record_from_dict({**record_as_dict(FULL), **changes})


def test_a_missing_key_is_named() -> None:
    raw = record_as_dict(FULL)
    del raw["customer"]
    with pytest.raises(ValueError, match="lacks customer"):
        record_from_dict(raw)
    with pytest.raises(ValueError, match="no object"):
        from_plain(BuildRecord, [])


def test_what_has_no_place_in_json_is_a_fault_of_ours() -> None:
    assert plain({"path": Path("/x"), "at": (NOW,)}) == {"path": "/x", "at": [NOW.isoformat()]}
    with pytest.raises(TypeError):
        plain({"x": b"bytes"})
