"""From a path in the container to layer, repository and the path in it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from smidr_ci.diagnosis.model import LayerMount

__all__ = ["Place", "place_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a printed path lies; None where it lies in no known layer."""

    layer: str | None = None
    repo_path: str | None = None


def place_of(path: str | None, layers: tuple[LayerMount, ...]) -> Place:
    """The layer and repository path of a file as printed in a log."""
    if not path or not path.startswith("/"):
        return Place()
    path = posixpath.normpath(path)
    best: LayerMount | None = None
    for layer in layers:
        root = layer.container_path.rstrip("/")
        if path.startswith(f"{root}/") and (
            best is None or len(root) > len(best.container_path.rstrip("/"))
        ):
            best = layer
    if best is None:
        return Place()
    return Place(best.name, path[len(best.container_path.rstrip("/")) + 1 :])
