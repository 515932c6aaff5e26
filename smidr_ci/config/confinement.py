"""Where a config may point when the operator doesn't let it name directories of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smidr_ci.config.base import KeyPath, MisfitError
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.sections import Directories

__all__ = ["confinement_problems", "host_path"]


def host_path(text: str, directory: Path, home: Path | None) -> Path:
    """The absolute path: relative to `directory`, a leading `~` is `home`; not resolved."""
    if text == "~" or text.startswith("~/"):
        return (home or Path.home()) / text[2:]
    return directory / text


def confinement_problems(
    config: ProjectConfig, directory: Path, home: Path | None
) -> Iterator[MisfitError]:
    """Each path and file URL of the config that leads out of the config's own directory."""
    inside = directory.resolve()
    for key, text in _host_places(config):
        place = text.removeprefix("file://localhost").removeprefix("file://")
        if not host_path(place, inside, home).resolve().is_relative_to(inside):
            yield MisfitError(
                f"`{'.'.join(str(step) for step in key)}` leads out of the project's directory, "
                "which this host does not allow",
                key,
                "Remove it, or have the operator set allow_config_directories in agent.yaml.",
            )


def _host_places(config: ProjectConfig) -> Iterator[tuple[KeyPath, str]]:
    for name in Directories.model_fields:
        text = getattr(config.directories, name)
        if text is not None:
            yield ("directories", name), text
    for name in ("sstate", "tmp", "deploy"):
        text = getattr(config.build, name)
        if text is not None:
            yield ("build", name), text
    for index, layer in enumerate(config.layers):
        if layer.path is not None:
            yield ("layers", index, "path"), layer.path
        urls: dict[KeyPath, str] = {("git",): layer.git or ""}
        urls |= {("mirrors", number): url for number, url in enumerate(layer.mirrors)}
        for key, url in urls.items():
            if url.startswith("file:"):
                yield ("layers", index, *key), url
