"""Where a config may point when the operator doesn't let it name directories of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from smidr_ci.config.base import KeyPath, MisfitError
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.sections import Directories

__all__ = ["confinement_problems", "host_path", "stranger_problems"]

_OLDER_NAMES = ("sstate", "tmp", "deploy")


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
        if not _is_inside(text, inside, home):
            yield MisfitError(
                f"`{'.'.join(str(step) for step in key)}` leads out of the project's directory, "
                "which this host does not allow",
                key,
                "Remove it, or have the operator set allow_config_directories in agent.yaml.",
            )


def stranger_problems(config: ProjectConfig) -> Iterator[MisfitError]:
    """Each key by which a stranger's config would choose where this host keeps things.

    Even inside of what the stranger sent: a repository that lies in `directories.layers` would
    have its git config obeyed, and shared state would be neither shared nor kept.
    """
    keys: list[KeyPath] = [
        ("directories", name)
        for name in Directories.model_fields
        if name != "source" and getattr(config.directories, name) is not None
    ]
    keys += [("build", name) for name in _OLDER_NAMES if getattr(config.build, name) is not None]
    for key in keys:
        yield MisfitError(
            f"`{'.'.join(map(str, key))}` is this host's to choose",
            key,
            "Remove it.",
        )


def _is_inside(text: str, inside: Path, home: Path | None) -> bool:
    # git takes %2e%2e in a URL for .., so what it will open is looked at as well.
    place = text.removeprefix("file://localhost").removeprefix("file://")
    readings = {place, unquote(place)} if text.startswith("file:") else {place}
    try:
        return all(
            host_path(reading, inside, home).resolve().is_relative_to(inside)
            for reading in readings
        )
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a zero byte
        return False


def _host_places(config: ProjectConfig) -> Iterator[tuple[KeyPath, str]]:
    for name in Directories.model_fields:
        text = getattr(config.directories, name)
        if text is not None:
            yield ("directories", name), text
    for name in _OLDER_NAMES:
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
