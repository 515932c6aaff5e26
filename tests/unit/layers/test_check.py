"""Layers that don't fit each other are named before BitBake starts."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.errors import LayerError
from smidr_ci.layers.assemble import assemble
from smidr_ci.layers.check import check_layers, order_layers
from smidr_ci.layers.layerconf import CORE_NAMES
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree

CORE = FoundLayer("core", "meta", series=("scarthgap",), core_series=("scarthgap",))


def tree(name: str, *layers: FoundLayer, **values: str) -> LayerTree:
    return LayerTree(name, "file:///x", "main", "c" * 40, Path("/x"), layers, **values)


def layer(name: str, **values: tuple[str, ...]) -> FoundLayer:
    return FoundLayer(name, f"meta-{name}", **{"series": ("scarthgap",), **values})  # type: ignore[arg-type]  # all values given here are tuples of names


def check(*trees: LayerTree, series: str | None = None) -> list[str]:
    said: list[str] = []
    check_layers(trees, series, said.append)
    return said


def test_missing_dependency_names_who_wants_it_and_where_it_is() -> None:
    with pytest.raises(LayerError) as caught:
        check(tree("poky", CORE), tree("own", layer("own", depends=("core", "meta-python"))))
    assert "own/meta-own needs the layer meta-python" in caught.value.message
    assert "meta-openembedded" in caught.value.hint


def test_unknown_dependency_points_to_the_layer_index() -> None:
    with pytest.raises(LayerError) as caught:
        check(tree("own", layer("own", depends=("acme-bsp",)), layer("acme-bps")))
    assert "layers.openembedded.org" in caught.value.hint
    assert "acme-bps" in caught.value.hint


def test_layer_for_another_release_is_named() -> None:
    with pytest.raises(LayerError) as caught:
        check(
            tree("poky", CORE), tree("own", layer("own", series=("kirkstone",))), series="scarthgap"
        )
    assert "yocto_series is scarthgap, but own/meta-own is for kirkstone" in caught.value.message


def test_misspelt_series_gets_the_nearest_name() -> None:
    with pytest.raises(LayerError) as caught:
        check(tree("poky", CORE), series="scarthgab")
    assert "yocto_series: scarthgap" in caught.value.hint


def test_core_decides_when_the_project_names_no_series() -> None:
    with pytest.raises(LayerError, match=r"core layer .* is scarthgap, but own/meta-own"):
        check(tree("poky", CORE), tree("own", layer("own", series=("kirkstone",))))


def test_layer_that_fits_every_core_fits() -> None:
    assert check(tree("poky", CORE), tree("own", layer("own", series=(CORE_NAMES,)))) == []


def test_layer_that_says_nothing_is_told_of() -> None:
    (line,) = check(tree("poky", CORE), tree("own", layer("own", series=())))
    assert "LAYERSERIES_COMPAT" in line


def test_same_collection_twice_names_both_places() -> None:
    with pytest.raises(LayerError) as caught:
        check(tree("poky", CORE), tree("oe", CORE))
    assert "poky/meta" in caught.value.message
    assert "oe/meta" in caught.value.message


def test_dependencies_come_first_and_else_the_order_of_the_file() -> None:
    trees = [
        tree("own", layer("own", depends=("core", "net"))),
        tree("extra", layer("extra", recommends=("net",))),
        tree("oe", layer("net", depends=("core",)), layer("zz")),
        tree("poky", CORE),
    ]
    names = [path.name for path in order_layers(trees)]
    assert names == ["meta-zz", "meta", "meta-net", "meta-own", "meta-extra"]


def test_recommendation_makes_no_circle_but_a_dependency_does() -> None:
    soft = tree("x", layer("a", recommends=("b",)), layer("b", depends=("a",)))
    assert [path.name for path in order_layers([soft])] == ["meta-a", "meta-b"]
    hard = tree("x", layer("a", depends=("b",)), layer("b", depends=("a",)))
    with pytest.raises(LayerError, match="in a circle: x/meta-a, x/meta-b"):
        order_layers([hard])


def together(tmp_path: Path, *names: str, provider: str | None = None) -> LayerSet:
    trees = []
    for name in names:
        root = tmp_path / name
        (root / "bitbake/lib/bb").mkdir(parents=True)
        (root / "bitbake/lib/bb/__init__.py").write_text('__version__ = "2.8.0"\n', "utf-8")
        core = (CORE,) if name == "poky" else ()
        script = "oe-init-build-env" if name == "poky" else None
        trees.append(
            LayerTree(
                name, "u", "main", "c" * 40, root, core, bitbake="bitbake", init_script=script
            )
        )
    return assemble(trees, series=None, provider=provider, report=lambda _: None)


def test_bitbake_beside_the_init_script_wins(tmp_path: Path) -> None:
    found = together(tmp_path, "other", "poky")
    assert found.bitbake == PurePosixPath("/smidr/layers/poky/bitbake")


def test_bitbake_of_the_provider_wins_over_all(tmp_path: Path) -> None:
    found = together(tmp_path, "other", "poky", provider="other")
    assert found.bitbake == PurePosixPath("/smidr/layers/other/bitbake")
    assert found.init_script == PurePosixPath("/smidr/layers/poky/oe-init-build-env")


def test_two_bitbakes_of_equal_right_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="more than once: in one and two"):
        together(tmp_path, "one", "two")


def test_no_bitbake_is_an_error_with_the_entry_to_add() -> None:
    with pytest.raises(LayerError) as caught:
        assemble(
            [tree("own", layer("own"))], series="scarthgap", provider=None, report=lambda _: None
        )
    assert "branch: '2.8'" in caught.value.hint
