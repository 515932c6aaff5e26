"""The part of `agent.yaml` about jobs that come from GitHub."""

from __future__ import annotations

from typing import Annotated, Literal

from smidr_ci.config.base import Model
from smidr_ci.config.matching import Matching
from smidr_ci.config.runners import RunnerSettings
from smidr_ci.config.values import Flag, MemorySize

__all__ = ["GitHubSettings"]

RepositoryPattern = Annotated[
    str,
    Matching(
        "repository",
        r"[A-Za-z0-9_.*?][A-Za-z0-9_.*?/-]{0,254}",
        "a repository's owner/name, with * and ?",
    ),
]


class GitHubSettings(Model):
    """Whose jobs are trusted; see `trust` for what the others may do."""

    trusted_refs: Literal["none", "protected", "repository"] = "protected"
    """Jobs of these refs are trusted: of `protected` branches and tags, of all branches, tags and
    pull requests of the `repository` itself, or of `none`. Pull requests from forks never are."""
    trusted_repositories: tuple[RepositoryPattern, ...] = ("*",)
    """Repositories that may have trusted jobs, with `*` and `?`: `acme/*`."""
    forks: Literal["build", "approve", "refuse"] = "build"
    """What is done with pull requests from forks: `build` them, untrusted; only once somebody with
    write access has pressed `Approve build` for that commit; or `refuse` them."""
    build_forks_in_privileged_events: Flag = False
    """Whether workflows for `pull_request_target`, `workflow_run` and comments may build a fork's
    commits. They have the rights of the repository: better use `pull_request`."""
    largest_artifact: MemorySize = 2 * 1024**3
    """Bigger files are not uploaded to GitHub; a manifest there names their place and SHA-256."""
    only_smidr_jobs: Literal["usual", "always", "never"] = "usual"
    """Whether a runner is started only for jobs whose workflow builds with smidr: `always`,
    `never`, or as is `usual`, for labels and not for scale sets. It saves slots, and is no
    protection: who may change a workflow can make it look so."""
    smidr_actions: tuple[RepositoryPattern, ...] = ("smidr/build",)
    """Actions that count as building with smidr, as `owner/name`, with `*` and `?`."""
    runners: RunnerSettings = RunnerSettings()
    """Official runners that the agent starts for waiting jobs, one per job."""
