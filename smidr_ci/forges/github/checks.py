"""Check runs and commit statuses through the REST API (docs.github.com, "Checks", "Statuses")."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import AppCredentials, Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.exchange import Call

__all__ = ["PLACEHOLDER", "CheckRuns", "CommitStatuses"]

PLACEHOLDER: Final = "smidr:waits-for-its-build"
"""`external_id` of a check run that was made before its build."""


class CheckRuns:
    """Those of this App; all methods raise `ForgeError`."""

    def __init__(self, client: GitHubClient) -> None:
        self._client = client
        self._app_id: int | None = None

    def find(
        self, repository: str, sha: str, name: str, external_id: str
    ) -> Mapping[str, Any] | None:
        """The newest with this id, else one that waits for its build."""
        listed = self.listed(repository, sha, name)
        own = [run for run in listed if run.get("external_id") == external_id]
        waiting = [
            run
            for run in listed
            if run.get("external_id") == PLACEHOLDER and run.get("status") == "queued"
        ]
        return max(own or waiting, key=lambda run: int(run["id"]), default=None)

    def listed(self, repository: str, sha: str, name: str) -> list[Mapping[str, Any]]:
        """All with this name on a commit. Others can use our names and ids: those don't count."""
        app_id = self.app_id()
        runs = self._client.pages(
            f"/repos/{repository}/commits/{sha}/check-runs",
            _scope(repository),
            action="look for the check run",
            params={"check_name": name, "app_id": app_id, "filter": "all"},
            items="check_runs",
        )
        return [
            run
            for run in runs
            if (run.get("app") or {}).get("id") == app_id and isinstance(run.get("id"), int)
        ]

    def get(self, repository: str, number: int) -> Mapping[str, Any]:
        """One check run as it is now."""
        path = f"/repos/{repository}/check-runs/{number:d}"
        return self._client.get(path, _scope(repository), action="read the check run").object()

    def create(self, repository: str, body: Mapping[str, Any]) -> int:
        """Make one and return its number; whoever gets no answer must look before trying again."""
        call = Call("POST", f"/repos/{repository}/check-runs", json=body, is_repeatable=False)
        made = self._client.send(call, _scope(repository), action="create a check run").object()
        number = made.get("id")
        if not isinstance(number, int):
            raise ForgeError("the answer has no check run", where=call.path)
        return number

    def update(self, repository: str, number: int, body: Mapping[str, Any]) -> None:
        """Change one. Annotations are added, so only a body without them is sent again."""
        has_annotations = bool(body.get("output", {}).get("annotations"))
        path = f"/repos/{repository}/check-runs/{number:d}"
        call = Call("PATCH", path, json=body, is_repeatable=not has_annotations)
        self._client.send(call, _scope(repository), action="update the check run")

    def of_suite(self, repository: str, suite: int) -> list[Mapping[str, Any]]:
        """The newest check runs of a suite that are this App's."""
        app_id = self.app_id()
        path = f"/repos/{repository}/check-suites/{suite:d}/check-runs"
        runs = self._client.pages(
            path, _scope(repository), action="list the suite's check runs", items="check_runs"
        )
        return [run for run in runs if (run.get("app") or {}).get("id") == app_id]

    def app_id(self) -> int:
        """The App's number, also when it was registered by its client id."""
        if self._app_id is None:
            credentials = self._client.credentials
            known = credentials.app_id if isinstance(credentials, AppCredentials) else ""
            with contextlib.suppress(ValueError):
                self._app_id = int(known)
        if self._app_id is None:
            found = self._client.get("/app", Scope(), action="look up the App").object().get("id")
            if not isinstance(found, int):
                raise ForgeError("the answer has no App", where="/app")
            self._app_id = found
        return self._app_id


def _scope(repository: str) -> Scope:
    return Scope.of(repository, checks="write")


class CommitStatuses:
    """What a plain token may write; all methods raise `ForgeError`."""

    def __init__(self, client: GitHubClient) -> None:
        self._client = client

    def current(self, repository: str, sha: str, context: str) -> Mapping[str, Any] | None:
        """The newest status of this context; GitHub does not tell big and small letters apart."""
        path = f"/repos/{repository}/commits/{sha}/status"
        scope = Scope.of(repository, statuses="write")
        statuses = self._client.pages(
            path, scope, action="read the commit's statuses", items="statuses"
        )
        same = [item for item in statuses if str(item.get("context")).lower() == context.lower()]
        return same[0] if same else None

    def post(self, repository: str, sha: str, body: Mapping[str, str]) -> None:
        """Add one; sent once, since each counts."""
        path = f"/repos/{repository}/statuses/{sha}"
        call = Call("POST", path, json=body, is_repeatable=False)
        scope = Scope.of(repository, statuses="write")
        self._client.send(call, scope, action="set the commit's status")
