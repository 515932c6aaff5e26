"""The part of `agent.yaml` about jobs that come from GitLab."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from smidr_ci.config.base import Model
from smidr_ci.config.matching import Called, Matching
from smidr_ci.config.values import MemorySize

__all__ = ["GitLabSettings"]

ProjectPattern = Annotated[
    str,
    Matching(
        "project", r"[A-Za-z0-9_.*?][A-Za-z0-9_.*?/-]{0,254}", "a project's path, with * and ?"
    ),
]


class GitLabSettings(Model):
    """Whose jobs are trusted; see `trust` for what the others may do."""

    trusted_refs: Literal["none", "protected", "project"] = "protected"
    """Jobs of these refs are trusted: of `protected` branches and tags, of all branches, tags and
    merge requests of the `project` itself, or of `none`. Merge requests from forks never are."""
    trusted_projects: tuple[ProjectPattern, ...] = ("*",)
    """Projects that may have trusted jobs, with `*` and `?`: `acme/*`. Name yours when the runner
    serves a whole instance: everybody may protect a branch of an own project."""
    largest_artifact: MemorySize | None = None
    """Artifacts with bigger files in all are not offered to GitLab, but go at once to
    `artifacts.external_store`. By default GitLab says by itself what is too big for it."""
    keep_checkouts_days: Annotated[int, Field(ge=0, le=3650), Strict(), Called("days")] = 14
    """Sources of a job stay so long for the next job of the same project, which then only fetches
    what is new."""
