"""What the fake GitHub knows: Apps, tokens, repositories, checks, statuses, runs, deliveries."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.github.openapi import template
from tests.fakes.github.runners import FakeRunners

__all__ = ["APP_ID", "SHA", "GitHubState", "Token", "rsa_key", "rsa_key_pem", "stamp"]

APP_ID = 4711
SHA = "0123456789abcdef0123456789abcdef01234567"


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """The App's key, made once per process."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def rsa_key_pem() -> str:
    raw = rsa_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return raw.decode()


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Token:
    repositories: frozenset[str]
    """Names without owner; empty for all of the installation."""
    permissions: dict[str, str]
    expires: datetime
    is_app: bool = True
    is_revoked: bool = False


@dataclass
class GitHubState:
    """Tests change it under the server's lock."""

    now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    installations: dict[str, int] = field(default_factory=lambda: {"acme": 77})
    app_permissions: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    token_requests: list[dict[str, Any]] = field(default_factory=list)
    token_life: timedelta = timedelta(hours=1)
    renamed: dict[str, str] = field(default_factory=dict)
    """Old to new `owner/name`."""
    checks: dict[int, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    check_app: dict[int, int] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    most_statuses: int = 1000
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    """Login to `admin`, `write`, `read` or `none`."""
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, bool] = field(default_factory=lambda: {"main": True, "topic": False})
    """Name, and whether it is protected."""
    reruns: list[int] = field(default_factory=list)
    default_branch: str = "main"
    runners: FakeRunners = field(default_factory=FakeRunners)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1001))

    def new_token(self, repositories: list[str], permissions: dict[str, str]) -> str:
        text = f"ghs_{uuid.uuid4().hex}"
        expires = self.now + self.token_life
        self.tokens[text] = Token(frozenset(repositories), permissions, expires)
        return text

    def plain_token(self) -> str:
        text = f"github_pat_{uuid.uuid4().hex}"
        self.tokens[text] = Token(frozenset(), {}, datetime.max.replace(tzinfo=UTC), is_app=False)
        return text

    def add_check(
        self, repository: str, body: dict[str, Any], app_id: int = APP_ID
    ) -> dict[str, Any]:
        number = next(self.numbers)
        run: dict[str, Any] = {
            **template("check-run"),
            "id": number,
            "repository": repository,
            "name": body["name"],
            "head_sha": body["head_sha"],
            "status": "queued",
            "conclusion": None,
            "external_id": "",
            "details_url": None,
            "started_at": stamp(self.now),
            "completed_at": None,
            "html_url": f"https://github.example/{repository}/runs/{number}",
            "pull_requests": [],
            "check_suite": {"id": 5},
            "actions": [],
        }
        run["output"] = {
            "title": None,
            "summary": None,
            "text": None,
            "annotations_count": 0,
            "annotations_url": f"https://github.example/check-runs/{number}/annotations",
        }
        run["app"] = {**(run.get("app") or {}), "id": app_id}
        self.checks[number] = run
        self.annotations[number] = []
        self.change_check(run, body)
        return run

    def change_check(self, run: dict[str, Any], body: dict[str, Any]) -> None:
        plain = ("name", "status", "external_id", "details_url", "started_at", "actions")
        run.update({key: body[key] for key in plain if key in body})
        if body.get("status") in {"queued", "in_progress"}:
            run["conclusion"] = run["completed_at"] = None
        if body.get("conclusion"):
            run["status"], run["conclusion"] = "completed", body["conclusion"]
            run["completed_at"] = body.get("completed_at") or stamp(self.now)
        output = dict(body.get("output") or {})
        added = output.pop("annotations", [])
        self.annotations[run["id"]] += added
        run["output"].update(output)
        run["output"]["annotations_count"] = len(self.annotations[run["id"]])

    def add_run(self, number: int = 555, **changes: Any) -> dict[str, Any]:
        """A workflow run of acme/bsp on main, unless told otherwise."""
        made = {
            **template("workflow-run"),
            "id": number,
            "event": "push",
            "head_sha": SHA,
            "head_branch": "main",
            "status": "in_progress",
            "conclusion": None,
            "run_attempt": 1,
            "path": ".github/workflows/image.yml",
            "pull_requests": [],
        }
        repository = {**made.get("repository", {}), "id": 9, "full_name": "acme/bsp"}
        made["repository"] = {**repository, "fork": False}
        made["head_repository"] = dict(made["repository"])
        made.update(changes)
        self.runs[number] = made
        return made

    def add_pull(self, number: int, head_sha: str, *, source: int | None) -> dict[str, Any]:
        """A pull request from the repository with the number `source`; None if that is gone."""
        made = {**template("pull-request"), "number": number, "merge_commit_sha": "e" * 40}
        head = {**made.get("head", {}), "sha": head_sha}
        head["repo"] = None if source is None else {**(head.get("repo") or {}), "id": source}
        self.pulls[number] = {**made, "head": head, "requested_teams": []}
        return self.pulls[number]

    def add_job(self, run_id: int = 555, **changes: Any) -> dict[str, Any]:
        made = {
            **template("job"),
            "id": next(self.numbers),
            "run_id": run_id,
            "status": "in_progress",
            "conclusion": None,
            "created_at": stamp(self.now),
            "completed_at": None,
            "name": "image",
            "labels": ["self-hosted", "smidr"],
            "runner_name": "lab1",
            "run_attempt": 1,
        }
        made.update(changes)
        self.jobs.setdefault(run_id, []).append(made)
        return made

    def add_delivery(self, event: str, payload: dict[str, Any], **changes: Any) -> dict[str, Any]:
        made = {
            "id": next(self.numbers),
            "guid": str(uuid.uuid4()),
            "delivered_at": stamp(self.now),
            "redelivery": False,
            "duration": 0.1,
            "status": "failed to connect to host",
            "status_code": 502,
            "event": event,
            "action": payload.get("action"),
            "installation_id": 77,
            "repository_id": 9,
            "throttled_at": None,
            "payload": payload,
        }
        made.update(changes)
        self.deliveries.insert(0, made)
        return made
