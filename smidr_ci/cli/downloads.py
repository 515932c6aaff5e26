"""Artifacts of a far agent, brought into a directory here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from smidr_ci.api.client import AgentClient
from smidr_ci.errors import HostError, UsageError
from smidr_ci.files import as_host_error

__all__ = ["download_all"]


def download_all(
    agent: AgentClient, build_id: str, paths: Sequence[str], output: Path
) -> Iterator[Path]:
    """Bring the chosen artifacts (none: all) below `output`; the path of each as it is there.

    Raises `UsageError` for a path that the build does not have.
    """
    known = {item.path for item in agent.artifacts(build_id)}
    for path in paths:
        if path not in known:
            raise UsageError(
                f"build {build_id} has no artifact {path}",
                hint=f"`smidr client artifacts list --build-id {build_id}` shows what it has.",
            )
    for path in paths or sorted(known):
        target = output / _inside(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise as_host_error(error, "can't keep the artifact", target.parent) from error
        agent.download(build_id, path, target, lambda _: None)
        yield target


def _inside(path: str) -> PurePosixPath:
    """The path, which the agent names, unless it would lead out of our directory."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\x00" in path:
        raise HostError(f"the agent names an artifact {path!r}, which is no path below here")
    return pure
