"""Whose jobs are trusted: decided from what the server says, lowered by anything suspicious."""

from __future__ import annotations

from typing import Any

import pytest

from smidr_ci.config.gitlab import GitLabSettings
from smidr_ci.forges.gitlab.parsing import parse_job
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.trust import merge_request_of, ref_of, sharing_key, trust_of
from tests.fakes.gitlab.site import payload

MERGE_REQUEST = "refs/merge-requests/5/head"


def job(ref: str = "main", **changes: Any) -> Job:
    git = {"ref": ref, "protected": changes.pop("protected", True), "ref_type": "branch"}
    variables = [{"key": key, "value": value} for key, value in changes.pop("variables", ())]
    info = {"name": "image", "project_id": 7, "project_full_path": "acme/distro"}
    return parse_job({**payload(), "git_info": git, "job_info": info, "variables": variables})


def trusts(made: Job, **settings: Any) -> bool:
    return trust_of(made, GitLabSettings(**settings)) == "trusted"


def test_a_protected_ref_is_trusted_and_others_are_not() -> None:
    assert trusts(job())
    assert not trusts(job(protected=False))


def test_a_server_that_does_not_say_is_not_trusted() -> None:
    assert not trusts(job(protected=None))


def test_the_operator_may_trust_the_whole_project_or_nothing() -> None:
    assert trusts(job(protected=False), trusted_refs="project")
    assert not trusts(job(), trusted_refs="none")


@pytest.mark.parametrize(("pattern", "is_known"), [("acme/*", True), ("other/*", False)])
def test_only_named_projects_are_trusted(pattern: str, is_known: bool) -> None:
    assert trusts(job(), trusted_projects=(pattern,)) is is_known


def source(number: str) -> tuple[str, str]:
    return "CI_MERGE_REQUEST_SOURCE_PROJECT_ID", number


def test_a_merge_request_of_the_project_itself_is_as_its_ref() -> None:
    assert trusts(job(MERGE_REQUEST, variables=[source("7")]))
    assert not trusts(job(MERGE_REQUEST, variables=[source("7")], protected=False))


def test_a_merge_request_from_a_fork_is_never_trusted() -> None:
    made = job(MERGE_REQUEST, variables=[source("99")])
    assert not trusts(made)
    assert not trusts(made, trusted_refs="project")


def test_a_job_can_not_hide_its_fork_behind_a_variable_of_its_own() -> None:
    assert not trusts(job(MERGE_REQUEST, variables=[source("99"), source("7")]))


def test_a_merge_request_whose_source_is_not_told_is_not_trusted() -> None:
    assert not trusts(job(MERGE_REQUEST), trusted_refs="project")


@pytest.mark.parametrize(
    ("ref", "number"),
    [
        (MERGE_REQUEST, 5),
        ("refs/merge-requests/12/merge", 12),
        ("refs/merge-requests/12/train", 12),
        ("main", None),
        ("refs/merge-requests/0/head", None),
        ("refs/merge-requests/5/head/x", None),
    ],
)
def test_the_merge_request_is_known_by_the_ref_alone(ref: str, number: int | None) -> None:
    made = job(ref, variables=[("CI_MERGE_REQUEST_IID", "666")])
    assert merge_request_of(made) == number


def test_jobs_share_by_server_project_and_ref() -> None:
    keys = {
        sharing_key(job(), "https://one.example.com"),
        sharing_key(job(), "https://two.example.com"),
        sharing_key(job(MERGE_REQUEST), "https://one.example.com"),
        sharing_key(job("refs/merge-requests/6/head"), "https://one.example.com"),
    }
    assert len(keys) == 4
    assert sharing_key(job(), "https://one.example.com/") in keys
    assert "secret" not in sharing_key(job(), "https://user:secret@one.example.com")


def test_refs_have_their_whole_names() -> None:
    assert ref_of(job()) == "refs/heads/main"
    assert ref_of(job(MERGE_REQUEST)) == MERGE_REQUEST
    tag = parse_job({**payload(), "git_info": {"ref": "v1", "ref_type": "tag"}})
    assert ref_of(tag) == "refs/tags/v1"
