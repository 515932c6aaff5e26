"""Workflow runs and their jobs as the API tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from smidr_ci.errors import ForbiddenError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.facts import PRIVILEGED, PULL_REQUESTS, JobFacts
from smidr_ci.forges.github.site import Site

__all__ = ["WorkflowRuns"]

_OPEN: Final = ("queued", "in_progress")
_MOST_RUNS: Final = 100


class WorkflowRuns:
    """All methods raise `ForgeError`; a list that has not changed costs no rate limit."""

    def __init__(self, site: Site, client: GitHubClient) -> None:
        self._site = site
        self._client = client

    def facts(self, repository: str, run_id: int, runner_name: str) -> JobFacts:
        """What GitHub says of a run that has a job on this runner now.

        A step only claims to belong to a run. `runner_name` must be known to this host by other
        means than the step's word; `ForbiddenError` when no job of the run is at work there.
        """
        if not self._site.covers(repository):
            raise ForbiddenError(f"this host does not serve {repository[:200]}")
        run = self.run(repository, run_id)
        self._check_runner(repository, run_id, runner_name)
        facts = self._facts_of(repository, run)
        if facts.pull_request and facts.event in PULL_REQUESTS:
            facts = self._with_pull_request(facts)
        elif facts.is_fork is False and facts.event not in PULL_REQUESTS:
            is_protected = self._is_protected(repository, str(run.get("head_branch") or ""))
            facts = replace(facts, is_ref_protected=is_protected)
        return facts

    def completed(self, facts: JobFacts) -> JobFacts:
        """The facts of an identity token, with where the commits come from; that it does not tell.

        For events that strangers can cause.
        """
        if facts.is_fork is not None:
            return facts
        run = self.run(facts.repository, facts.run_id)
        told = self._facts_of(facts.repository, run)
        number = facts.pull_request or told.pull_request
        found = replace(
            facts,
            is_fork=told.is_fork,
            head_repository=told.head_repository,
            head_sha=facts.head_sha or told.head_sha,
            pull_request=number,
        )
        return self._with_pull_request(found) if number and facts.event in PULL_REQUESTS else found

    def waiting(self, repository: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Jobs of this repository that wait for a runner, each after its run; newest run first."""
        scope = Scope.of(repository, actions="read")
        for status in _OPEN:  # a run is in progress as soon as one of its jobs is
            runs = self._client.pages(
                f"/repos/{repository}/actions/runs",
                scope,
                action="list the workflow runs",
                params={"status": status},
                items="workflow_runs",
            )
            for run in islice(runs, _MOST_RUNS):
                number = run.get("id")
                for job in self._jobs(repository, number) if isinstance(number, int) else ():
                    if job.get("status") == "queued":
                        yield run, job

    def run(self, repository: str, run_id: int) -> Mapping[str, Any]:
        """One run as GitHub tells it."""
        scope = Scope.of(repository, actions="read")
        path = f"/repos/{repository}/actions/runs/{run_id:d}"
        return self._client.get(path, scope, action="look up the workflow run").object()

    def _jobs(self, repository: str, run_id: int) -> Iterator[Mapping[str, Any]]:
        return self._client.pages(
            f"/repos/{repository}/actions/runs/{run_id:d}/jobs",
            Scope.of(repository, actions="read"),
            action="list the run's jobs",
            params={"filter": "latest"},
            items="jobs",
        )

    def _check_runner(self, repository: str, run_id: int, runner_name: str) -> None:
        for job in self._jobs(repository, run_id):
            is_running = job.get("status") == "in_progress"
            if is_running and runner_name and job.get("runner_name") == runner_name:
                return
        raise ForbiddenError(
            f"no job of run {run_id} in {repository} is at work on this host's runner",
            hint="Give the job 'permissions: id-token: write', and it can prove where it belongs.",
        )

    def _facts_of(self, repository: str, run: Mapping[str, Any]) -> JobFacts:
        own = run.get("repository") or {}
        head = run.get("head_repository") or {}
        event, branch = str(run.get("event", "")), str(run.get("head_branch") or "")
        sha = str(run.get("head_sha", ""))
        # A fork that was deleted has no repository: a stranger's all the same.
        is_fork = not isinstance(head.get("id"), int) or head.get("id") != own.get("id")
        pulls = [item for item in run.get("pull_requests") or () if isinstance(item, dict)]
        return JobFacts(
            host=self._site.host,
            repository=repository,
            repository_id=int(own.get("id") or 0),
            event=event,
            run_id=int(run.get("id") or 0),
            attempt=int(run.get("run_attempt") or 1),
            ref=f"refs/heads/{branch}" if branch and not is_fork else "",
            head_repository=str(head.get("full_name") or ""),
            is_fork=is_fork,
            # In these events it is the head of the pull request, and not what is checked out.
            commits=frozenset() if event in PRIVILEGED else frozenset({sha} if sha else ()),
            head_sha=sha,
            pull_request=int(pulls[0].get("number") or 0) if len(pulls) == 1 else 0,
            actor=str((run.get("actor") or {}).get("login", "")),
        )

    def _with_pull_request(self, facts: JobFacts) -> JobFacts:
        path = f"/repos/{facts.repository}/pulls/{facts.pull_request:d}"
        scope = Scope.of(facts.repository, pull_requests="read")
        pull = self._client.get(path, scope, action="look up the pull request").object()
        head = pull.get("head") or {}
        source = (head.get("repo") or {}).get("id")
        merged = pull.get("merge_commit_sha")
        return replace(
            facts,
            is_fork=bool(facts.is_fork) or source != facts.repository_id,
            ref=f"refs/pull/{facts.pull_request}/merge",
            head_sha=str(head.get("sha") or facts.head_sha),
            commits=facts.commits | ({merged} if isinstance(merged, str) else set()),
        )

    def _is_protected(self, repository: str, branch: str) -> bool:
        if not branch:
            return False
        path = f"/repos/{repository}/branches/{quote(branch, safe='')}"
        scope = Scope.of(repository, contents="read")
        try:
            found = self._client.get(path, scope, action="look up the branch").object()
        except ForgeError as error:
            if error.status == 404:  # a tag, or a branch that is gone
                return False
            raise
        return found.get("protected") is True
