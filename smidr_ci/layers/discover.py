"""Finds the layers, BitBake and the init script in a tree, without following a single link."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from smidr_ci.layers.failures import OneLayerError
from smidr_ci.layers.layerconf import parse_layer_conf
from smidr_ci.layers.model import FoundLayer
from smidr_ci.layers.safefiles import is_file_below, read_text_below

__all__ = ["Discovery", "bitbake_version", "discover", "select"]

_MAX_DEPTH: Final = 4
_MAX_FOLDERS: Final = 20_000
_NO_LAYERS_IN: Final = frozenset(
    {"bin", "conf", "lib", "doc", "docs", "documentation", "files", "wic", "node_modules"}
)
_NOT_BY_DEFAULT: Final = frozenset({"tests", "testdata", "selftest", "skeleton"})
_INIT_SCRIPT: Final = "oe-init-build-env"
_VERSION: Final = re.compile(r"^__version__\s*=\s*[\"'](\d{1,3})\.(\d{1,3})", re.MULTILINE)


@dataclass(frozen=True)
class Discovery:
    """All that a tree offers, whatever `smidr.yaml` then selects."""

    layers: tuple[FoundLayer, ...] = ()
    bitbake: str | None = None
    init_script: str | None = None

    def to_notes(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any]) -> Discovery:
        """The inverse of `to_notes`."""
        layers = tuple(_layer_from(layer) for layer in notes["layers"])
        return cls(layers, notes["bitbake"], notes["init_script"])


def _layer_from(raw: Mapping[str, Any]) -> FoundLayer:
    lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    return FoundLayer(**{**raw, **lists})


def discover(tree: Path) -> Discovery:
    """Look through the tree, at most four folders deep; layers are sorted by path."""
    folders = _folders(tree)
    layers = [layer for folder in folders for layer in _layers_at(tree, folder)]
    bitbake = _find_bitbake(tree, folders)
    return Discovery(
        layers=tuple(layers),
        bitbake=bitbake,
        init_script=_INIT_SCRIPT if is_file_below(tree, _INIT_SCRIPT) else None,
    )


def select(
    found: Discovery, tree: Path, name: str, wanted: tuple[str, ...] | None
) -> tuple[FoundLayer, ...]:
    """The layers that an entry of `smidr.yaml` uses; raises `OneLayerError` for a missing one."""
    if wanted is None:
        return tuple(layer for layer in found.layers if _is_default(layer.path))
    chosen: list[FoundLayer] = []
    missing: list[str] = []
    for folder in dict.fromkeys(_normal(path) for path in wanted):
        here = [layer for layer in found.layers if layer.path == folder]
        here = here or _layers_at(tree, folder)
        if here:
            chosen += here
        elif is_file_below(tree, f"{folder}/conf/layer.conf"):
            chosen.append(FoundLayer(collection="", path=folder))
        else:
            missing.append(folder)
    if missing:
        offered = ", ".join(dict.fromkeys(layer.path for layer in found.layers)) or "none"
        raise OneLayerError(
            name,
            f"no layer in folder {', '.join(missing)} (no conf/layer.conf there)",
            f"Layers found in {name}: {offered}. Correct `layers` of this entry.",
        )
    return tuple(chosen)


def _normal(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in {"", "."}) or "."


def _is_default(path: str) -> bool:
    parts = path.split("/")
    return not any(
        part in _NOT_BY_DEFAULT or part.endswith(("-selftest", "-skeleton")) for part in parts
    )


def _folders(tree: Path) -> list[str]:
    """Folders where a layer may lie, sorted, the root as `.` first."""
    found = ["."]
    level = [""]
    for _ in range(_MAX_DEPTH):
        below = [inner for folder in level for inner in _inner_folders(tree, folder)]
        found += below
        level = below
        if len(found) > _MAX_FOLDERS:
            break
    return [found[0], *sorted(found[1:_MAX_FOLDERS])]


def _inner_folders(tree: Path, folder: str) -> list[str]:
    with os.scandir(tree / folder) as entries:
        return [
            f"{folder}/{entry.name}" if folder else entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and entry.name not in _NO_LAYERS_IN
            and not entry.name.startswith((".", "recipes-", "classes"))
        ]


def _layers_at(tree: Path, folder: str) -> list[FoundLayer]:
    text = read_text_below(tree, f"{folder}/conf/layer.conf")
    return [] if text is None else list(parse_layer_conf(text, folder))


def _find_bitbake(tree: Path, folders: list[str]) -> str | None:
    nearby = [folder for folder in folders if "/" not in folder]
    nearby.sort(key=lambda folder: (folder != ".", folder != "bitbake"))
    for folder in nearby:
        parts = (f"{folder}/bin/bitbake", f"{folder}/lib/bb/__init__.py")
        if all(is_file_below(tree, part) for part in parts):
            return folder
    return None


def bitbake_version(tree: Path, bitbake: str) -> tuple[int, int] | None:
    """Such as (2, 8), from `bb.__version__` in the folder that holds `bin/bitbake`."""
    text = read_text_below(tree, f"{bitbake}/lib/bb/__init__.py")
    found = _VERSION.search(text or "")
    return (int(found[1]), int(found[2])) if found else None
