"""What the layer store hands to a build: trees on the host and their places in the container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["LAYERS_MOUNT", "FoundLayer", "LayerSet", "LayerTree"]

LAYERS_MOUNT: Final = PurePosixPath("/smidr/layers")


@dataclass(frozen=True)
class FoundLayer:
    """One BitBake layer inside a tree, as its `conf/layer.conf` describes it."""

    collection: str
    path: str
    """Folder relative to the tree's root, `.` for the root itself."""
    priority: int = 0
    depends: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    """LAYERSERIES_COMPAT; empty when the layer does not say."""
    recommends: tuple[str, ...] = ()
    """LAYERRECOMMENDS: ordered before this layer when present."""
    core_series: tuple[str, ...] = ()
    """LAYERSERIES_CORENAMES: the releases that this layer, OE-Core's, stands for."""


@dataclass(frozen=True)
class LayerTree:
    """An immutable, read-only tree of one repository at one commit."""

    name: str
    origin: str
    """URL without credentials, or the local directory."""
    ref: str
    """The branch, tag or commit that was asked for; empty for a local directory."""
    commit: str
    """Commit id; for a local directory `local-<hash of its content>`."""
    tree: Path
    layers: tuple[FoundLayer, ...] = ()
    bitbake: str | None = None
    """Folder (relative) that holds `bin/bitbake`, when there is one."""
    init_script: str | None = None
    """`oe-init-build-env` (relative), when there is one."""

    @property
    def mount_point(self) -> PurePosixPath:
        """Where the tree lies in the container."""
        return LAYERS_MOUNT / self.name


@dataclass(frozen=True)
class LayerSet:
    """All trees of a build, checked against each other, in the order of `smidr.yaml`."""

    trees: tuple[LayerTree, ...]
    bblayers: tuple[PurePosixPath, ...]
    """BBLAYERS as container paths; a layer comes after the layers it depends on."""
    bitbake: PurePosixPath
    """Container path of the folder that holds `bin/bitbake`."""
    bitbake_version: tuple[int, int]
    """Such as (2, 8): decides on syntax and variable names."""
    init_script: PurePosixPath | None = None
    """Container path of `oe-init-build-env`, when a layer has one."""

    @property
    def has_oe_core(self) -> bool:
        """Whether OE-Core (collection `core`) is among the layers."""
        return any(layer.collection == "core" for tree in self.trees for layer in tree.layers)
