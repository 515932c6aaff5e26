"""A machine or distro that no layer has is found before a container starts."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from smidr_ci.bitbake.names import check_names
from smidr_ci.config.models import ProjectConfig
from smidr_ci.errors import ConfigError
from smidr_ci.layers.model import FoundLayer, LayerSet, LayerTree


@pytest.fixture
def layers(tmp_path: Path) -> LayerSet:
    for name in (
        "meta/conf/machine/qemux86-64.conf",
        "meta/conf/machine/qemuarm64.conf",
        "meta/conf/machine/include/x86.inc",
        "meta/conf/machine/vendor/board.conf",
        "meta/conf/distro/poky.conf",
        "meta/conf/multiconfig/small.conf",
        "meta-unused/conf/machine/unused.conf",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = (FoundLayer("core", "meta"), FoundLayer("unused", "meta-unused"))
    tree = LayerTree("poky", "", "", "0" * 40, tmp_path, found)
    used = (PurePosixPath("/smidr/layers/poky/meta"),)
    return LayerSet((tree,), used, PurePosixPath("/bb"), (2, 8))


def config(**sections: object) -> ProjectConfig:
    return ProjectConfig.model_validate({"name": "demo", **sections})


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"base": {"machine": "qemux86-64", "distro": "poky"}},
        {"base": {"distro": "nodistro"}},
        {"build": {"machine": "qemuarm64", "multiconfig": ["small"]}},
    ],
)
def test_known_names_are_accepted(layers: LayerSet, sections: dict[str, object]) -> None:
    check_names(config(**sections), layers)


@pytest.mark.parametrize(
    ("sections", "message", "hint"),
    [
        ({"base": {"machine": "qemux86_64"}}, "machine qemux86_64", "qemux86-64"),
        ({"base": {"machine": "unused"}}, "machine unused", "Known:"),
        ({"base": {"distro": "pokky"}}, "distro pokky", "poky"),
        ({"build": {"multiconfig": ["smal"]}}, "multiconfig smal", "small"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    layers: LayerSet, sections: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_names(config(**sections), layers)
    assert hint in caught.value.hint


def test_a_link_that_leads_out_of_the_tree_is_not_followed(
    layers: LayerSet, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.conf").touch()
    machines = tmp_path / "meta" / "conf" / "machine"
    machines.rename(tmp_path / "moved")
    machines.symlink_to(outside)
    with pytest.raises(ConfigError) as caught:
        check_names(config(base={"machine": "secret"}), layers)
    assert "None of the layers has a machine" in caught.value.hint
