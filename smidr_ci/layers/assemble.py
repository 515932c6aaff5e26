"""Puts trees together: checks the layers against each other, and chooses BitBake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from smidr_ci.errors import LayerError
from smidr_ci.layers.check import check_layers, order_layers
from smidr_ci.layers.discover import bitbake_version
from smidr_ci.layers.model import LayerSet, LayerTree

__all__ = ["assemble"]

_BITBAKE: Final = "https://git.openembedded.org/bitbake"
# https://wiki.yoctoproject.org/wiki/Releases
_BRANCHES: Final = {
    "dunfell": "1.46", "kirkstone": "2.0", "langdale": "2.2", "mickledore": "2.4",
    "nanbield": "2.6", "scarthgap": "2.8", "styhead": "2.10", "walnascar": "2.12",
    "whinlatter": "2.16", "wrynose": "2.18",
}  # fmt: skip


def assemble(
    trees: Sequence[LayerTree],
    *,
    series: str | None,
    provider: str | None,
    report: Callable[[str], None],
) -> LayerSet:
    """The whole set, checked and ordered; raises `LayerError`."""
    check_layers(trees, series, report)
    init = _init_tree(trees, provider)
    bitbake = _bitbake_tree(trees, provider, init, series)
    version = bitbake_version(bitbake.tree, bitbake.bitbake or ".")
    if version is None:
        raise LayerError(
            "can't tell the version of BitBake: lib/bb/__init__.py has no __version__",
            where=f"layer {bitbake.name}",
            hint="Use a release branch of BitBake.",
        )
    return LayerSet(
        trees=tuple(trees),
        bblayers=order_layers(trees),
        bitbake=bitbake.mount_point / (bitbake.bitbake or "."),
        bitbake_version=version,
        init_script=init.mount_point / init.init_script if init and init.init_script else None,
    )


def _init_tree(trees: Sequence[LayerTree], provider: str | None) -> LayerTree | None:
    offering = [tree for tree in trees if tree.init_script]
    for tree in offering:
        if tree.name == provider:
            return tree
    # The script belongs to the core layer beside it; alone it would set up nothing.
    for tree in offering:
        if any(layer.collection == "core" for layer in tree.layers):
            return tree
    return None


def _bitbake_tree(
    trees: Sequence[LayerTree], provider: str | None, init: LayerTree | None, series: str | None
) -> LayerTree:
    offering = [tree for tree in trees if tree.bitbake]
    if not offering:
        branch = _BRANCHES.get(series or "", "2.8")
        raise LayerError(
            "no entry of `layers` has BitBake (bin/bitbake)",
            hint=f"Add one: {{name: bitbake, git: {_BITBAKE}, branch: '{branch}', layers: []}}.",
        )
    if len(offering) == 1:
        return offering[0]
    for tree in offering:
        if tree.name == provider:
            return tree
    for tree in offering:
        if tree is init:
            return tree
    names = " and ".join(tree.name for tree in offering)
    raise LayerError(
        f"BitBake is there more than once: in {names}",
        hint="Leave one out, or name the one to use as `base.provider`.",
    )
