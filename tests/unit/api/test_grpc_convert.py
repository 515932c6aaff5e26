"""What goes over gRPC comes out as it went in."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from datetime import UTC
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smidr_ci.agent.status import AgentStatus, OutboxStatus
from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc import convert
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.bitbake.progress import Progress, RunningTask, SstateSummary, TaskFailure
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState, StageRecord, Work
from smidr_ci.builds.service import BuildView, Note
from smidr_ci.builds.views import plain
from smidr_ci.diagnosis.model import Category, Consequence, ExcerptLine, Finding, Severity
from smidr_ci.errors import FailureKind, HostError
from smidr_ci.forges.status import RegistrationStatus
from smidr_ci.trust import Trust
from tests.fakes.build_service import a_record

TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 2**53)
CODES = st.none() | st.integers(-255, 255)
MOMENTS = st.datetimes(timezones=st.just(UTC))


def frozen(kind: type[Any], **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Instances with each field drawn by its type, or as `known` says."""
    by_type = {
        "str": TEXTS,
        "int": COUNTS,
        "bool": st.booleans(),
        "float": st.floats(0, 2e9),
        "datetime": MOMENTS,
        "str | None": st.none() | TEXTS,
        "int | None": CODES,
        "datetime | None": st.none() | MOMENTS,
        "tuple[str, ...]": st.lists(TEXTS, max_size=3).map(tuple),
        "Mapping[str, str]": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "Mapping[str, int]": st.dictionaries(TEXTS, COUNTS, max_size=3),
    }
    drawn = {
        item.name: known[item.name] if item.name in known else by_type[str(item.type)]
        for item in fields(kind)
    }
    return st.builds(kind, **drawn)


def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=2).map(tuple)


SSTATE = st.none() | frozen(SstateSummary)
FINDINGS = frozen(
    Finding,
    category=st.sampled_from(Category),
    severity=st.sampled_from(Severity),
    excerpt=some(frozen(ExcerptLine)),
    consequences=some(frozen(Consequence)),
)
REASONS = st.fixed_dictionaries(
    {
        "recipe": TEXTS,
        "task": TEXTS,
        "kind": TEXTS,
        "recipes": st.lists(TEXTS, max_size=3),
        "recipe_count": COUNTS,
        "others": COUNTS,
    },
    optional=dict.fromkeys(("name", "how", "old", "new", "text"), TEXTS),
)
RECORDS = frozen(
    BuildRecord,
    state=st.sampled_from(BuildState),
    trust=st.sampled_from(Trust),
    failure_kind=st.none() | st.sampled_from(FailureKind),
    stages=some(frozen(StageRecord)),
    sstate=SSTATE,
    work=st.none() | frozen(Work),
    # As the store gives them back: lists and dictionaries only.
    findings=some(FINDINGS.map(asdict).map(plain)),
    artifacts=some(frozen(ArtifactRecord)),
    rebuilt=some(REASONS),
    order=st.just({}),
)
PROGRESS = frozen(
    Progress,
    running=st.dictionaries(COUNTS, frozen(RunningTask), max_size=3),
    sstate=SSTATE,
    failures=some(frozen(TaskFailure)),
)
VIEWS = frozen(BuildView, record=RECORDS, progress=st.none() | PROGRESS, notes=some(frozen(Note)))
STATUSES = frozen(
    AgentStatus, outbox=some(frozen(OutboxStatus)), registrations=some(frozen(RegistrationStatus))
)


@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: BuildRecord) -> None:
    sent = convert.build_message(record).SerializeToString()
    assert convert.record_from(pb.Build.FromString(sent)) == record


@given(RECORDS)
def test_a_summary_leaves_out_what_a_list_leaves_out(record: BuildRecord) -> None:
    light = replace(
        record,
        config_text="",
        layer_commits={},
        findings=(),
        artifacts=(),
        rebuilt=(),
        is_summary=True,
    )
    assert convert.record_from(convert.summary_message(record)) == light


@given(PROGRESS)
def test_progress_comes_back_in_the_same_order(progress: Progress) -> None:
    back = convert.progress_from(convert.progress_message(progress))
    assert back == progress
    assert list(back.running) == list(progress.running)


@given(VIEWS)
def test_a_view_comes_back_with_its_record(view: BuildView) -> None:
    sent = convert.watch_message(view, after_note=-1, agent_run="x")
    assert convert.view_from(sent, view.record) == view


@given(STATUSES)
def test_a_status_comes_back_with_its_queue_in_order(status: AgentStatus) -> None:
    back = convert.status_from(convert.status_message(status))
    assert back == status
    assert list(back.queued) == list(status.queued)


@given(frozen(StartRequest, bundle=st.binary(max_size=20), directory=st.none()))
def test_a_request_comes_back_as_it_was(request: StartRequest) -> None:
    assert convert.start_request_from(convert.start_message(request)) == request


def test_only_newer_notes_are_sent() -> None:
    view = BuildView(3, a_record(), notes=(Note(4, "a"), Note(5, "b")))
    sent = convert.watch_message(view, after_note=4, agent_run="x")
    assert [note.text for note in sent.notes] == ["b"]


def test_half_a_character_is_replaced() -> None:
    record = replace(a_record(), failure_message="bad \ud800 text")
    assert convert.record_from(convert.build_message(record)).failure_message == "bad ? text"


def test_a_state_of_a_newer_agent_is_named() -> None:
    message = convert.build_message(a_record())
    message.state = 99  # type: ignore[assignment] # what an enum of a newer agent looks like
    with pytest.raises(HostError, match="BuildState 99"):
        convert.record_from(message)


@pytest.mark.parametrize(
    ("kind", "message", "elsewhere"),
    [
        (BuildRecord, pb.Build, {"order"}),
        (Finding, pb.Finding, set()),
        (Progress, pb.Progress, set()),
        (RunningTask, pb.RunningTask, {"pid"}),
        (TaskFailure, pb.TaskFailure, set()),
        (SstateSummary, pb.SstateSummary, set()),
        (StageRecord, pb.Stage, set()),
        (ArtifactRecord, pb.Artifact, set()),
        (AgentStatus, pb.AgentStatus, set()),
        (OutboxStatus, pb.OutboxStatus, set()),
        (StartRequest, pb.StartBuildRequest, {"directory"}),
        (BuildView, pb.WatchBuildResponse, {"record", "build", "agent_run"}),
    ],
)
def test_both_sides_have_the_same_fields(
    kind: type[Any], message: type[Any], elsewhere: set[str]
) -> None:
    ours = {item.name for item in fields(kind)}
    assert ours ^ set(message.DESCRIPTOR.fields_by_name) == elsewhere


@pytest.mark.parametrize(
    ("words", "enum"),
    [(BuildState, pb.BuildState), (FailureKind, pb.FailureKind), (Severity, pb.Severity)],
)
def test_every_word_has_a_number_and_comes_back(words: type[StrEnum], enum: Any) -> None:
    numbers = [convert.enum_value(enum.DESCRIPTOR, word) for word in words]
    assert sorted(numbers) == list(range(1, len(enum.DESCRIPTOR.values)))
    assert [convert.enum_from(enum.DESCRIPTOR, words, number) for number in numbers] == list(words)
