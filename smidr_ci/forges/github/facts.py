"""What GitHub itself says of a job: from its identity token, or from the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PRIVILEGED", "PULL_REQUESTS", "JobFacts"]

PULL_REQUESTS: Final = frozenset(
    {"pull_request", "pull_request_review", "pull_request_review_comment"}
)
"""Events whose runs check out what a pull request brings, with a token that may only read."""
PRIVILEGED: Final = frozenset(
    {
        "discussion",
        "discussion_comment",
        "fork",
        "issue_comment",
        "issues",
        "pull_request_target",
        "watch",
        "workflow_run",
    }
)
"""Events that strangers can cause, and whose runs have the base repository's rights."""


@dataclass(frozen=True)
class JobFacts:
    """One job's run. What is not known has the value that trusts least."""

    host: str
    """GitHub's, such as `github.com`."""
    repository: str
    """`owner/name`: where the workflow is."""
    repository_id: int
    event: str
    run_id: int
    attempt: int = 1
    ref: str = ""
    """Such as `refs/heads/main`; of a pull request `refs/pull/7/merge` where that is known."""
    is_ref_protected: bool = False
    head_repository: str = ""
    """Where the commits come from; empty when it is not known, or gone."""
    is_fork: bool | None = None
    """None when it is not known."""
    commits: frozenset[str] = frozenset()
    """What may be checked out for it to be what GitHub speaks of."""
    head_sha: str = ""
    """Where a check belongs: the head of the pull request, or the pushed commit."""
    pull_request: int = 0
    job_id: int = 0
    """The job's number, which is that of its own check run; 0 when it is not known."""
    actor: str = ""
