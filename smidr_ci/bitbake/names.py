"""Early checks: the machine, distro and multiconfigs that the config names must exist.

BitBake itself would notice only inside the container, and says it less clearly.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smidr_ci.config.models import ProjectConfig
from smidr_ci.errors import ConfigError
from smidr_ci.layers.model import LayerSet

__all__ = ["check_distro", "check_machine", "check_multiconfig", "check_names"]

_SHOWN: Final = 5


def check_names(config: ProjectConfig, layers: LayerSet) -> None:
    """Check machine, distro and multiconfigs; raises `ConfigError` with the nearest names."""
    if config.resolved_machine:
        check_machine(layers, config.resolved_machine)
    if config.base.distro:
        check_distro(layers, config.base.distro)
    for name in config.build.multiconfig:
        check_multiconfig(layers, name)


def check_machine(layers: LayerSet, machine: str) -> None:
    """Raise `ConfigError` unless a layer in use has `conf/machine/<machine>.conf`."""
    _check(layers, "machine", machine, "base.machine or build.machine")


def check_distro(layers: LayerSet, distro: str) -> None:
    """Raise `ConfigError` unless a layer in use has `conf/distro/<distro>.conf`.

    `nodistro` is OE-Core's name for having none.
    """
    if distro != "nodistro":
        _check(layers, "distro", distro, "base.distro")


def check_multiconfig(layers: LayerSet, name: str) -> None:
    """Raise `ConfigError` unless a layer in use has `conf/multiconfig/<name>.conf`."""
    _check(layers, "multiconfig", name, "build.multiconfig")


def _check(layers: LayerSet, kind: str, wanted: str, key: str) -> None:
    known = {
        name
        for tree, layer in _layers_in_use(layers)
        for name in _conf_names(tree, layer / "conf" / kind)
    }
    if wanted in known:
        return
    near = difflib.get_close_matches(wanted, sorted(known), _SHOWN, 0.5)
    shown = near or sorted(known)[:_SHOWN]
    known_text = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(shown)}."
    raise ConfigError(
        f"no layer has the {kind} {wanted} (conf/{kind}/{wanted}.conf)",
        hint=(known_text if shown else f"None of the layers has a {kind} at all.")
        + f" Correct {key}, or add the layer that has it to 'layers'.",
    )


def _layers_in_use(layers: LayerSet) -> Iterator[tuple[Path, Path]]:
    """Host directories of tree and layer, for each layer that is in BBLAYERS."""
    for tree in layers.trees:
        for layer in tree.layers:
            if tree.mount_point / layer.path in layers.bblayers:
                yield tree.tree, tree.tree / layer.path


def _conf_names(tree: Path, folder: Path) -> Iterator[str]:
    """Names of the conf files below the folder, such as `board` or `vendor/board`.

    A stranger's symlink that leads out of the tree is not followed.
    """
    root = folder.resolve()
    if not root.is_relative_to(tree.resolve()):
        return
    for inner, _, files in os.walk(root):
        for name in files:
            if name.endswith(".conf"):
                path = os.path.relpath(os.path.join(inner, name), root)
                yield path.removesuffix(".conf")
