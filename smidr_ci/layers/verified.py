"""Remembers which commits were seen on which branch, so that this is asked once only."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from smidr_ci.layers.urls import RepositoryUrl

__all__ = ["record_on_branch", "was_on_branch"]

_RECORD: Final = "smidr-verified"


def record_on_branch(mirror: Path, commit: str, branch: str, url: RepositoryUrl) -> None:
    """Remember in the mirror that this URL has the commit on the branch."""
    with suppress(FileNotFoundError), (mirror / _RECORD).open("a", encoding="utf-8") as out:
        out.write(f"{commit} {branch} {url.key}\n")


def was_on_branch(mirror: Path, commit: str, branch: str, urls: Iterable[RepositoryUrl]) -> bool:
    """Whether one of these URLs once had the commit on the branch; reads one small file."""
    wanted = {f"{commit} {branch} {url.key}" for url in urls}
    try:
        with (mirror / _RECORD).open(encoding="utf-8") as lines:
            return any(line.rstrip("\n") in wanted for line in lines)
    except FileNotFoundError:
        return False
