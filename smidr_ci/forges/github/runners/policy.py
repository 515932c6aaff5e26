"""Which waiting jobs get a runner of this host, before anything of them runs here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from smidr_ci.config.github import GitHubSettings
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.facts import PULL_REQUESTS
from smidr_ci.forges.github.runners.options import Mode
from smidr_ci.forges.github.runners.workflows import Workflows
from smidr_ci.text import printable

__all__ = ["Decision", "JobPolicy"]

log = logging.getLogger(__name__)

_MOST_HELD: Final = 500
_MOST_TOLD: Final = 1000

Hold = Callable[[str, str, str], None]
"""Shows that a commit waits for an approval: repository, commit, reason. Raises `ForgeError`."""


class Decision(NamedTuple):
    """About one job; `reason` says why it gets no runner."""

    is_allowed: bool
    reason: str = ""


class JobPolicy:
    """For one thread. `settings` gives the operator's as they are now."""

    def __init__(
        self,
        mode: Mode,
        settings: Callable[[], GitHubSettings],
        approvals: Approvals,
        workflows: Workflows,
        hold: Hold | None = None,
    ) -> None:
        self._mode = mode
        self._settings = settings
        self._approvals = approvals
        self._workflows = workflows
        self._hold = hold
        self._held: dict[tuple[str, str], None] = {}
        self._told: dict[tuple[str, object, str], None] = {}

    @property
    def is_needed(self) -> bool:
        """Whether a job could be refused at all; if not, none need be looked up."""
        return self._only_smidr or self._settings().forks != "build"

    def begin_look(self) -> None:
        """Some more workflows may be read: strangers' must not take all day, nor all calls."""
        self._workflows.begin_look()

    def decide(self, repository: str, run: Mapping[str, Any], job_name: str) -> Decision:
        """About a job of a workflow run; raises `ForgeError` when it can't be known now."""
        found = self._about_fork(repository, run)
        if found.is_allowed and self._only_smidr:
            is_smidr, reason = self._workflows.find(repository, run, job_name)
            found = Decision(is_smidr, reason)
        key = (repository, run.get("id"), job_name)
        if not found.is_allowed and key not in self._told:
            _remember(self._told, key, _MOST_TOLD)
            shown = printable(job_name)[:100]
            log.info("no runner for %r of %s: %s", shown, repository, found.reason)
        return found

    @property
    def _only_smidr(self) -> bool:
        chosen = self._settings().only_smidr_jobs
        return chosen == "always" or (chosen == "usual" and self._mode is not Mode.SCALE_SET)

    def _about_fork(self, repository: str, run: Mapping[str, Any]) -> Decision:
        """A runner gives a shell on this host, so what may not be built may not come so far."""
        rule = self._settings().forks
        if rule == "build" or run.get("event") not in PULL_REQUESTS or not _is_fork(run):
            return Decision(True)
        if rule == "refuse":
            return Decision(False, "this host takes nothing from forks")
        sha = str(run.get("head_sha") or "")
        if self._approvals.by(repository, sha):
            return Decision(True)
        reason = "the commit is from a fork: somebody with write access must approve it"
        self._ask_for_approval(repository, sha, reason)
        return Decision(False, reason)

    def _ask_for_approval(self, repository: str, sha: str, reason: str) -> None:
        key = (repository, sha)
        if self._hold is None or key in self._held:
            return
        try:
            self._hold(repository, sha, reason)
        except ForgeError as error:
            log.warning("can't show that %s waits for an approval: %s", repository, error)
            return
        _remember(self._held, key, _MOST_HELD)


def _is_fork(run: Mapping[str, Any]) -> bool:
    """A repository that is gone or unknown is a stranger's."""
    own, head = run.get("repository"), run.get("head_repository")
    if not isinstance(own, Mapping) or not isinstance(head, Mapping):
        return True
    return not isinstance(head.get("id"), int) or head.get("id") != own.get("id")


def _remember(known: dict[Any, None], key: object, most: int) -> None:
    known[key] = None
    while len(known) > most:
        del known[next(iter(known))]
