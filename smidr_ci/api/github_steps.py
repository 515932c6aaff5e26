"""Builds that steps of GitHub's workflows order: how far they are trusted is GitHub's word."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from smidr_ci.api.callers import Caller, Scope
from smidr_ci.api.client import StartRequest
from smidr_ci.api.operations import Operations
from smidr_ci.builds.model import BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.errors import ForbiddenError, NotFoundError, UsageError
from smidr_ci.files import open_untrusted
from smidr_ci.trust import Trust

if TYPE_CHECKING:  # an agent without a registration needs nothing of GitHub's
    from smidr_ci.forges.github.artifact_uploads import UploadReport
    from smidr_ci.forges.github.facts import JobFacts
    from smidr_ci.forges.github.forge import GitHubForge
    from smidr_ci.forges.github.targets import CheckTarget

__all__ = ["GitHubSteps", "StartedStep", "StepClaim", "UploadClaim"]

_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF: Final = re.compile(r"ref: (refs/heads/[A-Za-z0-9._/+-]{1,200})")
_MAX_HEAD: Final = 1024
_UNKNOWN: Final = (
    "GitHub's word on the job is missing: give the job `permissions: {id-token: write}`"
)


@dataclass(frozen=True)
class StepClaim:
    """What a step says of itself. Only the token is proof of anything."""

    server_url: str
    repository: str
    check_name: str
    workspace: Path
    id_token: str = ""
    """The job's identity token (OpenID Connect), for the audience `smidr`."""


@dataclass(frozen=True)
class UploadClaim:
    """Which artifacts go to which run; the token is the run's own and is kept nowhere."""

    server_url: str
    repository: str
    build_id: str
    paths: frozenset[str]
    """As the list of the build's artifacts has them."""
    runtime_token: str = field(repr=False)
    results_url: str


@dataclass(frozen=True)
class StartedStep:
    """A queued build, and why it is trusted or not, as a sentence."""

    record: BuildRecord
    reason: str


class GitHubSteps:
    """Blocking and thread-safe. `forge_for` finds the registration that serves a repository."""

    def __init__(
        self, operations: Operations, forge_for: Callable[[str, str], GitHubForge | None]
    ) -> None:
        self._operations = operations
        self._forge_for = forge_for

    def start(self, caller: Caller, request: StartRequest, claim: StepClaim) -> StartedStep:
        """Judge the step, queue its build, and report it as a check from then on.

        Raises `NotFoundError` when no registration serves the repository, `ForbiddenError` for
        what may not be built, and whatever `Operations.start` does.
        """
        if request.directory is None or not caller.is_local:
            raise UsageError("a step's build is of a directory on the agent's host")
        if not request.directory.is_relative_to(claim.workspace):
            raise UsageError("the config is not in the step's workspace")
        forge = self._served_by(claim.server_url, claim.repository)
        facts = _facts_of(forge, claim.id_token)
        if facts is None:
            started = self._operations.start(caller, replace(request, is_untrusted=True))
            return StartedStep(started, _UNKNOWN)
        return self._judged(caller, request, claim, forge, facts)

    def upload(
        self, caller: Caller, wanted: UploadClaim, cancel: CancelToken, say: Callable[[str], None]
    ) -> UploadReport:
        """Upload chosen artifacts of a build to the job's run; `say` hears of each.

        Trouble with a file is a warning of the report. Raises `NotFoundError` as `start` does,
        `ForgeError` when GitHub takes none at all, and `CancelledError`.
        """
        if not caller.is_local:
            raise UsageError("a step's artifacts are uploaded for a step on this host")
        caller.require(Scope.BUILD)
        forge = self._served_by(wanted.server_url, wanted.repository)
        folder = Path(self._operations.artifacts_directory(caller, wanted.build_id))
        kept = self._operations.artifacts(caller, wanted.build_id)
        chosen = [item for item in kept if item.path in wanted.paths]
        uploads = forge.uploads(
            wanted.runtime_token, wanted.results_url, wanted.build_id, cancel, say
        )
        return uploads.run(folder, chosen)

    def _served_by(self, server_url: str, repository: str) -> GitHubForge:
        forge = self._forge_for(server_url, repository)
        if forge is None:
            raise NotFoundError(
                f"no registration of this agent serves {repository[:200]!r}",
                hint="smidr runner register --forge github",
            )
        return forge

    def _judged(
        self,
        caller: Caller,
        request: StartRequest,
        claim: StepClaim,
        forge: GitHubForge,
        facts: JobFacts,
    ) -> StartedStep:
        from smidr_ci.forges.github.trust import sharing_key  # noqa: PLC0415 - see above

        verdict = forge.judge(facts, head_of(claim.workspace))
        target = _target_of(forge, facts, claim, request)
        if not verdict.is_allowed:
            if verdict.needs_approval and target is not None:
                forge.hold(target, verdict.reason)
            raise ForbiddenError(verdict.reason)
        is_untrusted = request.is_untrusted or verdict.trust is Trust.UNTRUSTED
        record = self._operations.start(
            caller,
            replace(request, is_untrusted=is_untrusted, ref=facts.ref or request.ref),
            private_cache_key=sharing_key(facts) if is_untrusted else "",
            is_judged=True,
        )
        if target is not None:
            forge.reporter.begin(record.build_id, target)
        return StartedStep(record, verdict.reason)


def _facts_of(forge: GitHubForge, id_token: str) -> JobFacts | None:
    """What GitHub says of the job; None when it says nothing, which is no fault of the job."""
    from smidr_ci.forges.errors import ForgeError  # noqa: PLC0415 - see above

    if not id_token:
        return None
    try:
        facts = forge.identity.facts(id_token)
    except ForgeError:
        return None
    try:
        return forge.runs.completed(facts)
    except ForgeError:
        return facts  # what is not known trusts least


def _target_of(
    forge: GitHubForge, facts: JobFacts, claim: StepClaim, request: StartRequest
) -> CheckTarget | None:
    from smidr_ci.forges.github.targets import CheckTarget  # noqa: PLC0415 - see above

    if not facts.head_sha:
        return None
    place = Path(request.config_name)
    inside = place.is_relative_to(claim.workspace)
    return CheckTarget(
        repository=facts.repository,
        head_sha=facts.head_sha,
        name=claim.check_name,
        details_url=f"{forge.site.web}/{facts.repository}/actions/runs/{facts.run_id}",
        config_path=str(place.relative_to(claim.workspace)) if inside else place.name,
        directory=str(claim.workspace),
        run_id=facts.run_id,
    )


def head_of(workspace: Path) -> str:
    """The commit that actions/checkout has left there; empty when that can't be told."""
    text = _line_of(workspace / ".git" / "HEAD")
    if (match := _REF.fullmatch(text)) and ".." not in match[1]:
        text = _line_of(workspace / ".git" / match[1])
    return text if _SHA.fullmatch(text) else ""


def _line_of(path: Path) -> str:
    try:
        with open_untrusted(path) as file:
            return file.read(_MAX_HEAD).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
