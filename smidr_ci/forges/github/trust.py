"""How far a job's build is trusted, and whether it may run at all: by what GitHub says alone.

The step's environment does not count, since whoever wrote the workflow of a fork chose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from smidr_ci.config.github import GitHubSettings
from smidr_ci.forges.github.facts import PRIVILEGED, PULL_REQUESTS, JobFacts
from smidr_ci.trust import Trust

__all__ = ["Verdict", "decide", "sharing_key"]


@dataclass(frozen=True)
class Verdict:
    """What is decided about one job."""

    trust: Trust
    is_allowed: bool = True
    needs_approval: bool = False
    """It may run once somebody with write access has approved the commit."""
    reason: str = ""
    """One sentence for the log of the job."""


def decide(
    facts: JobFacts, settings: GitHubSettings, *, built_sha: str, approved_by: str = ""
) -> Verdict:
    """The verdict on a job whose workspace has `built_sha` checked out, as this host saw itself.

    `approved_by` is whoever approved that very commit.
    """
    if facts.event in PRIVILEGED:
        return _privileged(facts, settings, built_sha)
    if facts.is_fork is not False:
        return _fork(facts, settings, approved_by)
    why_not = _why_untrusted(facts, settings, built_sha)
    if why_not:
        return Verdict(Trust.UNTRUSTED, reason=why_not)
    return Verdict(Trust.TRUSTED, reason=f"{facts.ref or facts.event} is trusted")


def _privileged(facts: JobFacts, settings: GitHubSettings, built_sha: str) -> Verdict:
    """These run with the rights of the base repository, so they must not build a fork's commits."""
    is_base = bool(built_sha) and built_sha in facts.commits
    if is_base or facts.is_fork is False:
        return Verdict(Trust.UNTRUSTED, reason=f"strangers can cause {facts.event}")
    if settings.build_forks_in_privileged_events:
        return Verdict(Trust.UNTRUSTED, reason=f"a fork's commit in {facts.event}, as configured")
    return Verdict(
        Trust.UNTRUSTED,
        is_allowed=False,
        reason=f"{facts.event} has the rights of the repository and must not build a fork's "
        "commit: use pull_request",
    )


def _fork(facts: JobFacts, settings: GitHubSettings, approved_by: str) -> Verdict:
    whose = facts.head_repository or "a fork"
    if settings.forks == "refuse":
        reason = f"this host builds nothing from forks, and the commit is from {whose}"
        return Verdict(Trust.UNTRUSTED, is_allowed=False, reason=reason)
    if settings.forks == "approve" and not approved_by:
        return Verdict(
            Trust.UNTRUSTED,
            is_allowed=False,
            needs_approval=True,
            reason=f"the commit is from {whose}: somebody with write access must approve it",
        )
    said = f", approved by {approved_by}" if approved_by else ""
    return Verdict(Trust.UNTRUSTED, reason=f"the commit is from {whose}{said}")


def _why_untrusted(facts: JobFacts, settings: GitHubSettings, built_sha: str) -> str:
    """Empty when nothing speaks against trust."""
    name = facts.repository.lower()
    if not any(fnmatchcase(name, item.lower()) for item in settings.trusted_repositories):
        return f"{facts.repository} is not among the trusted repositories"
    if settings.trusted_refs == "none":
        return "this host trusts no jobs"
    if settings.trusted_refs == "protected":
        if facts.event in PULL_REQUESTS:
            return "a pull request is not trusted"
        if not facts.is_ref_protected:
            return f"{facts.ref or 'the ref'} is not protected"
    if not built_sha or built_sha not in facts.commits:
        return "the job has another commit checked out than the one that it runs for"
    return ""


def sharing_key(facts: JobFacts) -> str:
    """Untrusted builds with the same key may use what each other left: those of one ref.

    A fork's branch has the name that its owner gave it, so its repository is in the key.
    """
    place = f"github:{facts.host}/{facts.repository_id or facts.repository}"
    if facts.pull_request:
        return f"{place}#{facts.pull_request}"
    if facts.is_fork is not False or not facts.ref:
        # Nothing that two strangers could share.
        return f"{place}@{facts.head_repository or 'unknown'}:{facts.head_sha or facts.run_id}"
    return f"{place}@{facts.ref}"
