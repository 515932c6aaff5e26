"""One note and one status, however often and in whatever order they are delivered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import FailureKind, SmidrError
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from smidr_ci.forges.gitlab.merge_requests import (
    NOTE,
    STATUS,
    CommitStatus,
    MergeRequestNote,
    MergeRequests,
    note_of,
    status_of,
)
from smidr_ci.forges.gitlab.reports import JobPage
from smidr_ci.forges.gitlab.transport import Transport
from tests.fakes.gitlab.api import GitLabApi, serve_gitlab_api

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A_NOTE = MergeRequestNote(4711, 12, "image: [qemuarm64]", 100, "It **works**.")
A_STATUS = CommitStatus(4711, "1" * 40, "smidr/image", "success", ref="main", description="done")


@pytest.fixture
def server() -> Iterator[GitLabApi]:
    with serve_gitlab_api() as running:
        yield running


@pytest.fixture
def api(server: GitLabApi) -> Iterator[MergeRequests]:
    transport = Transport(server.base)
    yield MergeRequests(transport, "glpat-x")
    transport.close()


def deliver(api: MergeRequests, kind: str, payload: Any, attempt: int = 1) -> None:
    plain = payload if isinstance(payload, dict) else asdict(payload)
    api.deliver(Delivery("gitlab:1", "k", kind, plain, None, NOW, attempt, CancelToken()))


def test_a_note_is_written_once_and_then_kept_up_to_date(
    server: GitLabApi, api: MergeRequests
) -> None:
    server.write_note("a person's words", author=7)
    for order, body in ((100, "first"), (101, "second"), (101, "second")):
        api.put_note(replace(A_NOTE, order=order, body=body))
    assert len(server.notes) == 2
    text = server.notes[1]["body"]
    assert text.startswith("<!-- smidr:report key=")
    assert text.endswith("\nsecond")
    assert [method for method, _ in server.requests].count("PUT") == 1, "no change, no request"


def test_each_key_has_its_own_note(server: GitLabApi, api: MergeRequests) -> None:
    api.put_note(A_NOTE)
    api.put_note(replace(A_NOTE, key="image: [qemux86-64]"))
    assert len(server.notes) == 2


def test_an_older_pipeline_does_not_overwrite_a_newer_one(
    server: GitLabApi, api: MergeRequests
) -> None:
    api.put_note(replace(A_NOTE, order=101, body="new"))
    api.put_note(replace(A_NOTE, order=100, body="old"))
    (note,) = server.notes
    assert note["body"].endswith("new")


def test_a_strangers_note_with_our_marker_is_not_touched(
    server: GitLabApi, api: MergeRequests
) -> None:
    forged = server.write_note(replace(A_NOTE, order=10**17, body="forged").text, author=7)
    api.put_note(A_NOTE)
    assert forged["body"].endswith("forged")
    assert len(server.notes) == 2


def test_our_own_words_in_the_middle_of_a_note_are_no_marker(
    server: GitLabApi, api: MergeRequests
) -> None:
    other = server.write_note(f"quoted:\n{A_NOTE.text}")
    api.put_note(A_NOTE)
    assert other["body"].startswith("quoted")
    assert len(server.notes) == 2


def test_the_note_is_found_behind_hundreds_of_others(server: GitLabApi, api: MergeRequests) -> None:
    for number in range(250):
        server.write_note(f"note {number}", author=number)
    api.put_note(A_NOTE)
    api.put_note(replace(A_NOTE, body="changed"))
    assert len(server.notes) == 251


def test_doubles_that_two_agents_wrote_become_one(server: GitLabApi, api: MergeRequests) -> None:
    for _ in range(3):
        server.write_note(A_NOTE.text)
    api.put_note(replace(A_NOTE, body="changed"))
    (note,) = server.notes
    assert note["body"].endswith("changed")


def test_an_answer_that_was_lost_makes_no_second_note(
    server: GitLabApi, api: MergeRequests
) -> None:
    server.drop_answers = 1
    with pytest.raises(RetryLater):
        deliver(api, NOTE, A_NOTE)
    deliver(api, NOTE, A_NOTE, attempt=2)
    assert len(server.notes) == 1


def test_a_status_is_set_and_changes(server: GitLabApi, api: MergeRequests) -> None:
    deliver(api, STATUS, replace(A_STATUS, state="running"))
    deliver(api, STATUS, A_STATUS)
    (status,) = server.statuses
    assert status["status"] == "success"
    assert status["description"] == "done"


def test_a_status_that_arrived_unheard_is_no_failure(server: GitLabApi, api: MergeRequests) -> None:
    server.drop_answers = 1
    with pytest.raises(RetryLater):
        deliver(api, STATUS, A_STATUS)
    deliver(api, STATUS, A_STATUS, attempt=2)
    assert len(server.statuses) == 1


def test_long_texts_fit_gitlabs_limits(server: GitLabApi, api: MergeRequests) -> None:
    api.set_status(replace(A_STATUS, name="n" * 400, description="d" * 400, target_url="h" * 400))
    (status,) = server.statuses
    assert len(status["name"]) <= 255
    assert len(status["description"]) <= 255
    assert "target_url" not in status


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503])
def test_trouble_there_is_tried_again_later(
    server: GitLabApi, api: MergeRequests, status: int
) -> None:
    server.failures.append(status)
    with pytest.raises(RetryLater, match=str(status)):
        deliver(api, STATUS, A_STATUS)
    deliver(api, STATUS, A_STATUS)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_given_up(server: GitLabApi, api: MergeRequests, status: int) -> None:
    server.failures.append(status)
    with pytest.raises(GiveUp, match=str(status)):
        deliver(api, STATUS, A_STATUS)


def test_a_wrong_token_is_told_without_it(server: GitLabApi) -> None:
    transport = Transport(server.base)
    with pytest.raises(SmidrError, match="scope api") as caught:
        MergeRequests(transport, "glpat-wrong").put_note(A_NOTE)
    transport.close()
    assert "glpat-wrong" not in str(caught.value)


def test_a_server_that_is_gone_is_tried_again_later() -> None:
    transport = Transport("http://127.0.0.1:9")
    with pytest.raises(RetryLater):
        deliver(MergeRequests(transport, "glpat-x"), NOTE, A_NOTE)
    transport.close()


def test_deliveries_of_another_version_are_given_up(api: MergeRequests) -> None:
    with pytest.raises(GiveUp):
        deliver(api, NOTE, {"strange": 1})
    with pytest.raises(GiveUp):
        deliver(api, "strange", {})


def test_a_build_becomes_a_status_and_a_note() -> None:
    record = BuildRecord(
        build_id="x-12345678",
        customer="x",
        project="<!-- smidr:report key=0000000000000000 order=1 -->",
        targets=("image",),
        state=BuildState.FAILED,
        created=NOW,
        failure_kind=FailureKind.DISK,
        failure_message="only 1 GB is free\n  Free some.",
    )
    page = JobPage(job_url="https://g.example/p/-/jobs/1")
    status = status_of(record, project_id=1, sha="1" * 40, name="smidr", ref="main", page=page)
    assert (status.state, status.description) == ("failed", "build host: only 1 GB is free")
    note = note_of(record, None, page, project_id=1, merge_request=2, key="image", order=5)
    assert note.text.count("<!--") == 1
    assert "only 1 GB is free" in note.body
    assert "https://g.example/p/-/jobs/1" in note.body
