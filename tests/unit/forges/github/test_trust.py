"""Who is trusted: by the job's identity token or by the API, never by the step's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from smidr_ci.config.github import GitHubSettings
from smidr_ci.errors import ForbiddenError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.facts import PRIVILEGED, JobFacts
from smidr_ci.forges.github.oidc import IdentityTokens
from smidr_ci.forges.github.runs import WorkflowRuns
from smidr_ci.forges.github.transport import Transport
from smidr_ci.forges.github.trust import decide, sharing_key
from smidr_ci.trust import Trust
from tests.fakes.github.identity import identity_token, signing_key
from tests.fakes.github.room import Room
from tests.fakes.github.server import Fault, GitHubServer
from tests.fakes.github.state import SHA

OTHER = "fedcba9876543210fedcba9876543210fedcba98"
MERGE = "e" * 40
SETTINGS = GitHubSettings()
JWKS = "GET /_services/token/.well-known/jwks"
PUSH = JobFacts(
    host="github.com",
    repository="acme/bsp",
    repository_id=9,
    event="push",
    run_id=555,
    ref="refs/heads/main",
    is_ref_protected=True,
    head_repository="acme/bsp",
    is_fork=False,
    commits=frozenset({SHA}),
    head_sha=SHA,
)
PULL = replace(
    PUSH,
    event="pull_request",
    ref="refs/pull/7/merge",
    is_ref_protected=False,
    commits=frozenset({SHA, MERGE}),
    pull_request=7,
)
FORK = replace(PULL, is_fork=True, head_repository="mallory/bsp")


def settings(**changes: Any) -> GitHubSettings:
    return GitHubSettings.model_validate({**SETTINGS.model_dump(), **changes})


def tokens(room: Room) -> IdentityTokens:
    return IdentityTokens(room.site, Transport(), clock=room.clock)


def token(room: Room, **changes: Any) -> str:
    return identity_token(room.server.web, datetime.now(UTC), **changes)


def runs(room: Room) -> WorkflowRuns:
    return WorkflowRuns(room.site, room.app())


def test_a_push_to_a_protected_branch_is_trusted() -> None:
    verdict = decide(PUSH, SETTINGS, built_sha=SHA)
    assert (verdict.trust, verdict.is_allowed) == (Trust.TRUSTED, True)


@pytest.mark.parametrize("built", ["", OTHER])
def test_another_commit_than_the_jobs_own_is_not_trusted(built: str) -> None:
    assert decide(PUSH, SETTINGS, built_sha=built).trust is Trust.UNTRUSTED


def test_a_branch_that_is_not_protected_is_not_trusted_unless_all_are() -> None:
    topic = replace(PUSH, ref="refs/heads/topic", is_ref_protected=False)
    verdict = decide(topic, SETTINGS, built_sha=SHA)
    assert verdict.trust is Trust.UNTRUSTED
    assert "refs/heads/topic is not protected" in verdict.reason
    assert decide(topic, settings(trusted_refs="repository"), built_sha=SHA).trust is Trust.TRUSTED
    assert decide(PUSH, settings(trusted_refs="none"), built_sha=SHA).trust is Trust.UNTRUSTED


def test_only_named_repositories_are_trusted() -> None:
    chosen = settings(trusted_repositories=["acme/other", "ACME/b*"])
    assert decide(PUSH, chosen, built_sha=SHA).trust is Trust.TRUSTED
    chosen = settings(trusted_repositories=["acme/other"])
    assert decide(PUSH, chosen, built_sha=SHA).trust is Trust.UNTRUSTED


def test_a_pull_request_of_the_repository_itself_is_trusted_only_if_all_refs_are() -> None:
    assert decide(PULL, SETTINGS, built_sha=MERGE).trust is Trust.UNTRUSTED
    everything = settings(trusted_refs="repository")
    assert decide(PULL, everything, built_sha=MERGE).trust is Trust.TRUSTED
    assert decide(PULL, everything, built_sha=OTHER).trust is Trust.UNTRUSTED


@pytest.mark.parametrize("is_fork", [True, None])
@pytest.mark.parametrize("refs", ["none", "protected", "repository"])
def test_a_forks_pull_request_is_never_trusted(is_fork: bool | None, refs: str) -> None:
    facts = replace(FORK, is_fork=is_fork, is_ref_protected=True)
    verdict = decide(facts, settings(trusted_refs=refs), built_sha=MERGE, approved_by="alice")
    assert verdict.trust is Trust.UNTRUSTED
    assert verdict.is_allowed


def test_forks_may_need_an_approval_or_be_refused() -> None:
    held = decide(FORK, settings(forks="approve"), built_sha=MERGE)
    assert (held.is_allowed, held.needs_approval) == (False, True)
    approved = decide(FORK, settings(forks="approve"), built_sha=MERGE, approved_by="alice")
    assert (approved.is_allowed, approved.trust) == (True, Trust.UNTRUSTED)
    refused = decide(FORK, settings(forks="refuse"), built_sha=MERGE, approved_by="alice")
    assert (refused.is_allowed, refused.needs_approval) == (False, False)


@pytest.mark.parametrize("event", sorted(PRIVILEGED))
def test_a_privileged_event_builds_no_forks_commit_and_trusts_nothing(event: str) -> None:
    everything = settings(trusted_refs="repository")
    base = replace(PUSH, event=event, is_fork=None)
    verdict = decide(base, everything, built_sha=SHA)
    assert (verdict.is_allowed, verdict.trust) == (True, Trust.UNTRUSTED)
    for built in (OTHER, ""):
        for is_fork in (True, None):
            refused = decide(replace(base, is_fork=is_fork), everything, built_sha=built)
            assert not refused.is_allowed
            assert "use pull_request" in refused.reason
    allowed = settings(build_forks_in_privileged_events=True)
    verdict = decide(base, allowed, built_sha=OTHER)
    assert (verdict.is_allowed, verdict.trust) == (True, Trust.UNTRUSTED)


def test_strangers_share_a_cache_with_nobody_else() -> None:
    topic = replace(PUSH, ref="refs/heads/topic")
    forks_topic = replace(topic, is_fork=True, head_repository="mallory/bsp", pull_request=0)
    unknown = replace(topic, is_fork=None, head_repository="", head_sha="")
    keys = [
        sharing_key(item)
        for item in (PUSH, topic, forks_topic, unknown, PULL, replace(PULL, pull_request=8))
    ]
    assert len(set(keys)) == len(keys)
    assert sharing_key(PULL) == "github:github.com/9#7"
    assert sharing_key(topic) == "github:github.com/9@refs/heads/topic"
    assert sharing_key(replace(PUSH, host="git.acme.example")) != sharing_key(PUSH)


def test_a_good_token_tells_where_the_job_belongs(room: Room, github: GitHubServer) -> None:
    checker = tokens(room)
    facts = checker.facts(token(room))
    assert replace(facts, host="github.com", actor="") == PUSH
    checker.facts(token(room))
    assert len(github.asked(JWKS)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://github.com/acme"},
        {"aud": ["other"]},
        {"iss": "https://evil.example"},
        {"exp": datetime.now(UTC) - timedelta(hours=1)},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
        {"iat": datetime.now(UTC) + timedelta(hours=1)},
        {"repository": "mallory/bsp"},
        {"repository": "acme/other"},
        {"key": "second"},
        {"kid": "second"},
    ],
)
def test_another_token_is_refused(room: Room, changes: dict[str, Any]) -> None:
    with pytest.raises(ForbiddenError):
        tokens(room).facts(token(room, **changes))


def test_tokens_of_other_kinds_are_refused(room: Room) -> None:
    good = token(room)
    head, payload, _ = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    key = signing_key("first").public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    import base64
    import hashlib
    import hmac
    import json

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    confused = f"{part({'alg': 'HS256', 'kid': 'first', 'typ': 'JWT'})}.{payload}"
    made = hmac.new(pem, confused.encode(), hashlib.sha256).digest()
    forged = f"{confused}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
    without = f"{part({'alg': 'none', 'kid': 'first'})}.{payload}."
    changed = f"{head}.{part({**claims, 'ref': 'x'})}.{good.split('.')[2]}"
    for bad in ("", "x", "a.b.c", forged, without, changed, "A" * 20_000):
        with pytest.raises(ForbiddenError):
            tokens(room).facts(bad)


def test_unknown_keys_do_not_make_us_ask_all_the_time(room: Room, github: GitHubServer) -> None:
    checker = tokens(room)
    for number in range(5):
        with pytest.raises(ForbiddenError):
            checker.facts(token(room, kid=f"key{number}"))
    assert len(github.asked(JWKS)) == 1
    room.advance(31)
    with pytest.raises(ForbiddenError):
        checker.facts(token(room, kid="other"))
    assert len(github.asked(JWKS)) == 2


def test_keys_that_can_not_be_had_are_githubs_fault(room: Room, github: GitHubServer) -> None:
    github.faults.append(Fault(JWKS, status=503, count=2))
    with pytest.raises(ForgeError):
        tokens(room).facts(token(room))


def test_a_pull_requests_token_needs_the_api_to_be_no_forks(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_run(event="pull_request", pull_requests=[])
    claims = {"event_name": "pull_request", "ref": "refs/pull/7/merge", "sha": MERGE}
    facts = tokens(room).facts(token(room, **claims))
    assert facts.is_fork is None
    assert decide(facts, settings(trusted_refs="repository"), built_sha=MERGE).trust is (
        Trust.UNTRUSTED
    )
    github.state.add_pull(7, SHA, source=9)
    known = runs(room).completed(facts)
    assert (known.is_fork, known.head_sha, known.pull_request) == (False, SHA, 7)
    assert decide(known, settings(trusted_refs="repository"), built_sha=MERGE).trust is (
        Trust.TRUSTED
    )
    github.state.add_pull(7, SHA, source=66)
    assert runs(room).completed(facts).is_fork is True


def test_a_run_is_looked_up_when_there_is_no_token(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    github.state.add_job()
    facts = runs(room).facts("acme/bsp", 555, "lab1")
    assert (facts.is_fork, facts.is_ref_protected, facts.ref) == (False, True, "refs/heads/main")
    assert decide(facts, SETTINGS, built_sha=SHA).trust is Trust.TRUSTED
    github.state.add_run(head_branch="topic")
    assert not runs(room).facts("acme/bsp", 555, "lab1").is_ref_protected
    github.state.add_run(head_branch="v1.0")
    assert not runs(room).facts("acme/bsp", 555, "lab1").is_ref_protected


def test_a_step_can_not_name_somebody_elses_run(room: Room, github: GitHubServer) -> None:
    github.state.add_run()
    github.state.add_job(runner_name="elsewhere")
    github.state.add_job(status="completed", conclusion="success")
    for runner in ("lab1", "", "lab2"):
        with pytest.raises(ForbiddenError, match="at work"):
            runs(room).facts("acme/bsp", 555, runner)
    with pytest.raises(ForbiddenError, match="serve"):
        runs(room).facts("mallory/bsp", 555, "lab1")
    with pytest.raises(ForgeError):
        runs(room).facts("acme/bsp", 556, "lab1")


@pytest.mark.parametrize("head", [{"id": 66, "full_name": "mallory/bsp"}, None])
def test_a_forks_run_is_known_by_its_head(
    room: Room, github: GitHubServer, head: dict[str, Any] | None
) -> None:
    run = github.state.add_run(event="pull_request")
    if head is None:
        run["head_repository"] = None
        github.is_strict = False
    else:
        run["head_repository"].update(head)
    github.state.add_job()
    facts = _lenient(github, room)
    assert facts.is_fork is True
    assert decide(facts, settings(trusted_refs="repository"), built_sha=SHA).trust is (
        Trust.UNTRUSTED
    )


def _lenient(github: GitHubServer, room: Room) -> JobFacts:
    try:
        return runs(room).facts("acme/bsp", 555, "lab1")
    finally:
        if not github.is_strict:
            # GitHub's description does not know of forks that are gone; GitHub does.
            github.violations.clear()


def test_a_workflow_run_with_a_forks_head_is_refused(room: Room, github: GitHubServer) -> None:
    run = github.state.add_run(event="workflow_run")
    run["head_repository"].update({"id": 66, "full_name": "mallory/bsp"})
    github.state.add_job()
    facts = runs(room).facts("acme/bsp", 555, "lab1")
    assert not decide(facts, SETTINGS, built_sha=SHA).is_allowed


def test_jobs_that_wait_are_listed_from_both_kinds_of_runs(
    room: Room, github: GitHubServer
) -> None:
    github.state.add_run(1, status="queued")
    github.state.add_run(2, status="in_progress")
    github.state.add_run(3, status="completed", conclusion="success")
    first = github.state.add_job(1, status="queued", runner_name=None)
    second = github.state.add_job(2, status="queued", runner_name=None)
    github.state.add_job(2)
    github.state.add_job(3, status="queued")
    looker = runs(room)
    assert {job["id"] for _, job in looker.waiting("acme/bsp")} == {first["id"], second["id"]}
    assert len(list(looker.waiting("acme/bsp"))) == 2
    looks = github.asked("GET /repos/acme/bsp/actions/runs")
    assert ["if-none-match" in asked.headers for asked in looks] == [False, False, True, True]
