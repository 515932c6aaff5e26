"""What `smidr build` was asked for, and by whom."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BuildOptions", "ref_of", "user_name"]


@dataclass(frozen=True)
class BuildOptions:
    """The options of the command."""

    config_path: Path
    targets: tuple[str, ...]
    customer: str
    clean: bool
    clean_image: bool
    fetch_only: bool
    locked: bool
    keep: bool
    is_untrusted: bool = False
    is_fresh: bool = False


def user_name() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ref_of(environ: Mapping[str, str]) -> str:
    """What a CI job builds, by the variables of GitLab and GitHub; empty when they don't say."""
    if environ.get("CI_COMMIT_TAG"):
        return f"refs/tags/{environ['CI_COMMIT_TAG']}"
    if environ.get("CI_COMMIT_BRANCH"):
        return f"refs/heads/{environ['CI_COMMIT_BRANCH']}"
    return environ.get("CI_MERGE_REQUEST_REF_PATH") or environ.get("GITHUB_REF") or ""
