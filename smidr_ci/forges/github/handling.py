"""Sees to hints: asks GitHub for the state behind each, and acts on that alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.service import BuildService
from smidr_ci.errors import FailureKind, SmidrError, UsageError
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.checks import PLACEHOLDER, CheckRuns
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.errors import as_delivery_error
from smidr_ci.forges.github.events import Hint
from smidr_ci.forges.github.rebuilding import Rebuilds, Rerun
from smidr_ci.forges.github.rendering import Action
from smidr_ci.forges.github.reporter import CheckReporter
from smidr_ci.forges.github.targets import CheckNames, CheckTarget
from smidr_ci.forges.github.webhooks import HOOK
from smidr_ci.text import printable

__all__ = ["HintHandler", "Parts"]

log = logging.getLogger(__name__)

_WRITERS: Final = frozenset({"admin", "maintain", "write"})
_REFUSED: Final = frozenset({403, 404, 409, 410, 422})
_BUSY: Final = frozenset({FailureKind.HOST, FailureKind.DISK, FailureKind.ENGINE})


@dataclass(frozen=True)
class Parts:
    """What the handler works with."""

    client: GitHubClient
    runs: CheckRuns
    service: BuildService
    reporter: CheckReporter
    names: CheckNames
    approvals: Approvals
    rebuilds: Rebuilds
    jobs_changed: Callable[[str], None]
    """Called with a repository in which jobs may wait or have ended; ask GitHub which."""
    approved: Callable[[str, str], None]
    """Called with repository and commit once somebody let it build."""


class HintHandler:
    """Implements `forges.deliveries.Deliverer` for hints, which may come twice or too late."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def deliver(self, delivery: Delivery) -> None:
        """See to one; raises `RetryLater` or `GiveUp`."""
        if delivery.kind != HOOK:
            raise GiveUp(f"nobody knows what a {printable(delivery.kind)[:60]} is")
        try:
            self._handle(Hint.from_plain(delivery.payload))
        except ForgeError as error:
            # Hints behind it wait: what GitHub refuses now is not worth that.
            if error.status in _REFUSED:
                raise GiveUp(str(error)) from error
            raise as_delivery_error(error) from error
        except (RetryLater, GiveUp):
            raise
        except TypeError as error:
            raise GiveUp(f"the hint is from another version of smidr: {error}") from error
        except SmidrError as error:
            if error.kind in _BUSY:
                raise RetryLater(str(error)) from error
            raise GiveUp(str(error)) from error

    def _handle(self, hint: Hint) -> None:
        if hint.event == "workflow_job":
            self._parts.jobs_changed(hint.repository)
        elif not self._parts.client.credentials.is_app:
            return  # check runs are an App's
        elif hint.event == "merge_group":
            self._merge_group(hint)
        elif hint.event == "check_suite":
            for run in self._parts.runs.of_suite(hint.repository, hint.number):
                self._rerun(hint, run, suffix=f"-{run.get('id')}")
        elif hint.event == "check_run":
            self._check_run(hint)

    def _check_run(self, hint: Hint) -> None:
        run = self._parts.runs.get(hint.repository, hint.number)
        if (run.get("app") or {}).get("id") != self._parts.runs.app_id():
            return  # of another App
        if hint.action == "rerequested":
            self._rerun(hint, run)
            return
        if not self._may_write(hint):
            log.warning(
                "%s may not press %r in %s",
                hint.sender or "nobody",
                hint.identifier,
                hint.repository,
            )
            return
        if hint.identifier == Action.APPROVE:
            self._approve(hint, run)
        elif hint.identifier == Action.CANCEL:
            self._cancel(hint, run)
        elif hint.identifier in {Action.REBUILD, Action.REBUILD_CLEAN}:
            self._rerun(hint, run, is_clean=hint.identifier == Action.REBUILD_CLEAN)

    def _may_write(self, hint: Hint) -> bool:
        """Asked of GitHub, whatever the page offered to whoever pressed the button."""
        if not hint.sender:
            return False
        path = f"/repos/{hint.repository}/collaborators/{quote(hint.sender, safe='')}/permission"
        scope = Scope.of(hint.repository, metadata="read")
        try:
            found = self._parts.client.get(path, scope, action="ask what a user may do").object()
        except ForgeError as error:
            if error.status == 404:  # no such user any more
                return False
            raise
        return found.get("permission") in _WRITERS

    def _cancel(self, hint: Hint, run: Mapping[str, Any]) -> None:
        build = self._own_build(run)
        if build is not None and not build.state.is_final:
            reason = f"{hint.sender} cancelled it on GitHub"
            self._parts.service.cancel(build.build_id, reason)

    def _approve(self, hint: Hint, run: Mapping[str, Any]) -> None:
        sha = str(run.get("head_sha", ""))
        self._parts.approvals.add(hint.repository, sha, hint.sender)
        log.info("%s approved %s of %s", hint.sender, sha, hint.repository)
        self._parts.approved(hint.repository, sha)

    def _rerun(
        self, hint: Hint, run: Mapping[str, Any], *, is_clean: bool = False, suffix: str = ""
    ) -> None:
        """A new build and a new check run; the old one stays as it is."""
        old = self._own_build(run)
        if old is None or not old.state.is_final:
            return
        details_url = str(run.get("details_url") or "")
        wish = Rerun(
            repository=hint.repository,
            build_id=old.build_id,
            details_url=details_url,
            asked_by=f"github {hint.sender or 'user'}",
            key=f"{hint.guid}{suffix}",
            is_clean=is_clean,
        )
        new = self._parts.rebuilds.rebuild(wish)
        if new:
            target = CheckTarget(
                repository=hint.repository,
                head_sha=str(run.get("head_sha", "")),
                name=str(run.get("name", "")),
                details_url=details_url,
                config_path=old.config_path or "smidr.yaml",
            )
            self._parts.reporter.begin(new, target)

    def _own_build(self, run: Mapping[str, Any]) -> BuildRecord | None:
        """None for a build of another host with the same App."""
        external_id = str(run.get("external_id") or "")
        try:
            record = self._parts.service.view(external_id).record if external_id else None
        except UsageError:
            return None
        return record if record is not None and record.build_id == external_id else None

    def _merge_group(self, hint: Hint) -> None:
        """Show the checks at once, under the names that branch protection knows.

        The job that the group's workflow starts takes them over.
        """
        if not hint.head_sha:
            return
        runs = self._parts.runs
        for name in self._parts.names.of(hint.repository):
            if not runs.listed(hint.repository, hint.head_sha, name):
                body = {
                    "name": name,
                    "head_sha": hint.head_sha,
                    "external_id": PLACEHOLDER,
                    "status": "queued",
                    "output": {
                        "title": "Waiting for the merge queue's job",
                        "summary": "The build begins when a workflow for `merge_group` runs it.",
                    },
                }
                runs.create(hint.repository, body)
