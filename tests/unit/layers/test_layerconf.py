"""What is read from `conf/layer.conf`."""

from __future__ import annotations

import pytest

from smidr_ci.layers.layerconf import CORE_NAMES, parse_layer_conf
from smidr_ci.layers.model import FoundLayer
from tests.fakes.git_repository import layer_conf


def only(text: str) -> FoundLayer:
    (layer,) = parse_layer_conf(text, "meta-x")
    return layer


def test_all_facts_of_a_plain_file_are_read() -> None:
    text = layer_conf("x", depends="core y", compat="scarthgap styhead", priority="7")
    assert only(text) == FoundLayer(
        "x", "meta-x", priority=7, depends=("core", "y"), series=("scarthgap", "styhead")
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("core (>= 12) y", ("core", "y")),
        ("core (>=12)y", ("core", "y")),
        ("core:3 y:1", ("core", "y")),
        ("core \\\n    y \\\n", ("core", "y")),
        ("", ()),
    ],
)
def test_dependencies_are_read_without_their_versions(value: str, names: tuple[str, ...]) -> None:
    assert only(layer_conf("x", depends=value)).depends == names


@pytest.mark.parametrize(
    ("lines", "series"),
    [
        ("LAYERSERIES_COMPAT_x = 'a'\nLAYERSERIES_COMPAT_x += \"b\"", ("a", "b")),
        ('LAYERSERIES_COMPAT_x = "a"\nLAYERSERIES_COMPAT_x:append = " b"', ("a", "b")),
        ('LAYERSERIES_COMPAT_x_append = " b"\nLAYERSERIES_COMPAT_x = "a"', ("a", "b")),
        ('LAYERSERIES_COMPAT_x ?= "a"\nLAYERSERIES_COMPAT_x ?= "b"', ("a",)),
        ('LAYERSERIES_COMPAT_x := "a"\nLAYERSERIES_COMPAT_x .= " b"', ("a", "b")),
        ('LAYERSERIES_COMPAT_x = "b"\nLAYERSERIES_COMPAT_x =+ "a"', ("a", "b")),
        ('OLD = "a b"\nLAYERSERIES_COMPAT_x = "${OLD} c"', ("a", "b", "c")),
        ('LAYERSERIES_COMPAT_x = "a"\n# LAYERSERIES_COMPAT_x = "b"', ("a",)),
        ('LAYERSERIES_COMPAT_x = "${LAYERSERIES_CORENAMES}"', (CORE_NAMES,)),
        ("LAYERSERIES_COMPAT_x = \"${@'a' if d else 'b'}\"", ()),
    ],
)
def test_assignments_have_bitbakes_meaning(lines: str, series: tuple[str, ...]) -> None:
    assert only(f'BBFILE_COLLECTIONS += "x"\n{lines}\n').series == series


def test_file_without_a_collection_is_no_layer() -> None:
    assert parse_layer_conf('BBPATH .= ":${LAYERDIR}"\n', ".") == ()


def test_variables_that_refer_to_each_other_end() -> None:
    text = 'A = "${B}${B}${B}"\nB = "${A}${A}${A}"\nBBFILE_COLLECTIONS = "x ${A}"\n'
    assert only(text).collection == "x"
