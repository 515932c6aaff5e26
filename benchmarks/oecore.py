"""OE-Core as a smidr project, from checkouts that the environment names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import yaml

from benchmarks.generated import NOTHING, nothing_recipe
from benchmarks.site import Site

__all__ = ["ENTER", "is_given", "oe_core_site"]

_VARIABLES: Final = {"openembedded-core": "SMIDR_TEST_OE_CORE", "bitbake": "SMIDR_TEST_BITBAKE"}
_IMAGE: Final = "SMIDR_TEST_OE_IMAGE"
ENTER: Final = (
    ". /smidr/layers/openembedded-core/oe-init-build-env /smidr/build /smidr/layers/bitbake"
    " >/dev/null && export LANG=C.UTF-8"
)
_LAYER_CONF: Final = """\
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes/*/*.bb"
BBFILE_COLLECTIONS += "benchmark"
BBFILE_PATTERN_benchmark = "^${LAYERDIR}/"
LAYERSERIES_COMPAT_benchmark = "kirkstone scarthgap styhead walnascar whinlatter wrynose"
"""


def is_given() -> bool:
    """Whether both checkouts are named."""
    return all(os.environ.get(name) for name in _VARIABLES.values())


def oe_core_site(work: Path) -> Site:
    """A project whose target is a recipe that builds nothing, so that BitBake only parses.

    SMIDR_TEST_OE_IMAGE names an image with what Yocto needs of a host; by default smidr makes one.
    """
    if not is_given():
        raise SystemExit(f"set {' and '.join(_VARIABLES.values())} to checkouts")
    root = work / "oe-core" / "project"
    _write_layer(root / "meta-benchmark")
    layers = [
        {"name": "bitbake", "path": os.environ[_VARIABLES["bitbake"]], "layers": []},
        {
            "name": "openembedded-core",
            "path": os.environ[_VARIABLES["openembedded-core"]],
            "layers": ["meta"],
        },
        {"name": "meta-benchmark", "path": "meta-benchmark"},
    ]
    config = {
        "name": "oe-core",
        "base": {"machine": "qemux86-64", "distro": "nodistro"},
        "layers": layers,
        "build": {"image": NOTHING},
        "local_conf": ['CONNECTIVITY_CHECK_URIS = ""'],
        "container": {"base_image": image} if (image := os.environ.get(_IMAGE)) else {},
    }
    (root / "smidr.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return Site("oe-core", root, work / "home", NOTHING)


def _write_layer(layer: Path) -> None:
    folder = layer / "recipes" / "benchmark"
    folder.mkdir(parents=True)
    (layer / "conf").mkdir()
    (layer / "conf" / "layer.conf").write_text(_LAYER_CONF, encoding="utf-8")
    (folder / f"{NOTHING}.bb").write_text(nothing_recipe(), encoding="utf-8")
