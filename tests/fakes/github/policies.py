"""What the settings make of jobs, without any GitHub."""

from __future__ import annotations

from pathlib import Path

from smidr_ci.config.document import Mapping, compose
from smidr_ci.config.github import GitHubSettings
from smidr_ci.forges.github.approvals import Approvals
from smidr_ci.forges.github.auth import TokenCredentials
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.runners.options import Mode
from smidr_ci.forges.github.runners.policy import JobPolicy
from smidr_ci.forges.github.runners.steps import runs_smidr
from smidr_ci.forges.github.runners.workflows import Workflows
from smidr_ci.forges.github.sender import Sender
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport
from smidr_ci.home import Home

__all__ = ["is_smidr_step", "looks_at_workflows"]


def looks_at_workflows(settings: GitHubSettings, home: Home) -> bool:
    """Whether a scale set's jobs are looked up before they get a runner."""
    site = Site.of("https://github.com/acme")
    with Transport() as transport:
        credentials = TokenCredentials(Path("/nowhere"))
        client = GitHubClient(Sender(site.api, transport), credentials)
        workflows = Workflows(site, client, lambda: settings.smidr_actions)
        approvals = Approvals(home, "lab")
        return JobPolicy(Mode.SCALE_SET, lambda: settings, approvals, workflows).is_needed


def is_smidr_step(settings: GitHubSettings, action: str) -> bool:
    """Whether a step with this action builds with smidr."""
    step = compose(f"{{uses: {action}, with: {{config: smidr.yaml}}}}")
    return isinstance(step, Mapping) and runs_smidr(step, settings.smidr_actions)
