"""Do the layers fit each other? Named before BitBake starts, with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Final

from smidr_ci.errors import LayerError
from smidr_ci.layers.layerconf import CORE_NAMES
from smidr_ci.layers.model import FoundLayer, LayerTree

__all__ = ["check_layers", "order_layers"]

_OE: Final = "https://git.openembedded.org/meta-openembedded"
_YOCTO: Final = "https://git.yoctoproject.org"
_WELL_KNOWN: Final = {
    "core": ("meta", "https://git.openembedded.org/openembedded-core"),
    "yocto": ("meta-poky", f"{_YOCTO}/meta-yocto"),
    "yoctobsp": ("meta-yocto-bsp", f"{_YOCTO}/meta-yocto"),
    "openembedded-layer": ("meta-oe", _OE),
    "meta-python": ("meta-python", _OE),
    "perl-layer": ("meta-perl", _OE),
    "networking-layer": ("meta-networking", _OE),
    "multimedia-layer": ("meta-multimedia", _OE),
    "filesystems-layer": ("meta-filesystems", _OE),
    "webserver": ("meta-webserver", _OE),
    "gnome-layer": ("meta-gnome", _OE),
    "xfce-layer": ("meta-xfce", _OE),
    "meta-initramfs": ("meta-initramfs", _OE),
    "selinux": ("the repository itself", f"{_YOCTO}/meta-selinux"),
    "security": ("the repository itself", f"{_YOCTO}/meta-security"),
    "tpm-layer": ("meta-tpm", f"{_YOCTO}/meta-security"),
    "virtualization-layer": ("the repository itself", f"{_YOCTO}/meta-virtualization"),
    "cloud-services-layer": ("the repository itself", f"{_YOCTO}/meta-cloud-services"),
    "raspberrypi": ("the repository itself", f"{_YOCTO}/meta-raspberrypi"),
    "freescale-layer": ("the repository itself", f"{_YOCTO}/meta-freescale"),
    "intel": ("the repository itself", f"{_YOCTO}/meta-intel"),
    "meta-arm": ("meta-arm", f"{_YOCTO}/meta-arm"),
    "arm-toolchain": ("meta-arm-toolchain", f"{_YOCTO}/meta-arm"),
    "meta-ti-bsp": ("meta-ti-bsp", f"{_YOCTO}/meta-ti"),
    "xilinx": ("meta-xilinx-core", f"{_YOCTO}/meta-xilinx"),
    "rauc": ("the repository itself", "https://github.com/rauc/meta-rauc"),
    "swupdate": ("the repository itself", "https://github.com/sbabic/meta-swupdate"),
    "qt6-layer": ("the repository itself", "https://code.qt.io/yocto/meta-qt6.git"),
    "qt5-layer": ("the repository itself", "https://github.com/meta-qt5/meta-qt5"),
    "clang-layer": ("the repository itself", "https://github.com/kraj/meta-clang"),
    "lts-mixins": ("a branch such as scarthgap/...", f"{_YOCTO}/meta-lts-mixins"),
}

_Place = tuple[LayerTree, FoundLayer]


def check_layers(
    trees: Sequence[LayerTree], series: str | None, report: Callable[[str], None]
) -> None:
    """Raise `LayerError` for a doubled collection, a wrong release, or a missing dependency."""
    places = [(tree, layer) for tree in trees for layer in tree.layers]
    _check_doubles(places)
    _check_series(places, series, report)
    _check_dependencies(places)


def _check_doubles(places: Sequence[_Place]) -> None:
    first: dict[str, _Place] = {}
    for place in places:
        other = first.setdefault(place[1].collection, place)
        if place[1].collection and other is not place:
            raise LayerError(
                f"the layer {place[1].collection} is there twice: "
                f"in {_where(other)} and in {_where(place)}",
                hint="Choose one with the key `layers` of the entry (a list of its folders).",
                layers=[other[0].name, place[0].name],
            )


def _check_series(
    places: Sequence[_Place], series: str | None, report: Callable[[str], None]
) -> None:
    core = {name for _, layer in places for name in layer.core_series}
    wanted = {series} if series else core
    if not wanted:
        return
    said = {name for _, layer in places for name in layer.series} - {CORE_NAMES} | core
    wrong: dict[str, str] = {}
    for place in places:
        fits = {name for name in place[1].series if name != CORE_NAMES}
        if CORE_NAMES in place[1].series:
            fits |= core or wanted
        if not place[1].series:
            report(f"{_where(place)} does not say which releases it is for (LAYERSERIES_COMPAT)")
        elif not fits & wanted:
            wrong[_where(place)] = f"{_where(place)} is for {', '.join(sorted(fits))}"
    if wrong:
        _raise_series(wrong, wanted, series, said)


def _raise_series(
    wrong: dict[str, str], wanted: set[str], series: str | None, said: set[str]
) -> None:
    names = " or ".join(sorted(wanted))
    near = get_close_matches(series, said, n=1) if series and series not in said else []
    hint = (
        f"Did you mean `yocto_series: {near[0]}`?"
        if near
        else f"Use the branch of each that is made for {names}, or another `yocto_series`."
    )
    source = "yocto_series" if series else "the core layer (LAYERSERIES_CORENAMES)"
    raise LayerError(
        f"{source} is {names}, but {'; '.join(wrong.values())}",
        hint=hint,
        layers=[where.partition("/")[0] for where in wrong],
    )


def _check_dependencies(places: Sequence[_Place]) -> None:
    present = {layer.collection for _, layer in places}
    missing: dict[str, list[str]] = {}
    for place in places:
        for name in place[1].depends:
            if name not in present:
                missing.setdefault(name, []).append(_where(place))
    if not missing:
        return
    texts = [f"{' and '.join(users)} needs the layer {name}" for name, users in missing.items()]
    hints = [_remedy(name, present) for name in missing]
    raise LayerError(
        f"{'; '.join(texts)}, which no entry of `layers` has",
        hint="\n  ".join(hints),
        layers=[user.partition("/")[0] for users in missing.values() for user in users],
    )


def _remedy(name: str, present: set[str]) -> str:
    if name in _WELL_KNOWN:
        folder, url = _WELL_KNOWN[name]
        return f"{name} is {folder} of {url}: add it to `layers`."
    near = get_close_matches(name, present, n=1)
    known = f" (there is {near[0]})" if near else ""
    return (
        f"Add the repository that has {name}{known}; "
        f"https://layers.openembedded.org lists where layers come from."
    )


def _where(place: _Place) -> str:
    tree, layer = place
    return tree.name if layer.path == "." else f"{tree.name}/{layer.path}"


def order_layers(trees: Sequence[LayerTree]) -> tuple[PurePosixPath, ...]:
    """BBLAYERS as container paths: dependencies first, else in the order of `smidr.yaml`.

    Raises `LayerError` when layers depend on each other in a circle.
    """
    places = [(tree, layer) for tree in trees for layer in tree.layers]
    present = {layer.collection for _, layer in places}
    done: dict[str, None] = {}
    ordered: list[_Place] = []
    waiting = list(places)
    while waiting:
        ready = next((p for p in waiting if _is_ready(p[1], present, done, soft=True)), None)
        # A recommendation is a wish: it must not make a circle.
        ready = ready or next((p for p in waiting if _is_ready(p[1], present, done)), None)
        if ready is None:
            raise LayerError(
                "layers depend on each other in a circle: "
                + ", ".join(_where(place) for place in waiting),
                hint="Correct LAYERDEPENDS in the conf/layer.conf of one of them.",
                layers=[tree.name for tree, _ in waiting],
            )
        waiting.remove(ready)
        done[ready[1].collection] = None
        ordered.append(ready)
    paths = (tree.mount_point / layer.path for tree, layer in ordered)
    return tuple(dict.fromkeys(paths))


def _is_ready(
    layer: FoundLayer, present: set[str], done: dict[str, None], *, soft: bool = False
) -> bool:
    needed = {*layer.depends, *(layer.recommends if soft else ())} & present
    return needed - {layer.collection} <= done.keys()
