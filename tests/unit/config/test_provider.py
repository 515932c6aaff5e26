"""`base.provider`: which repositories it adds, at which ref."""

from __future__ import annotations

from typing import Any

import pytest

from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.provider import BITBAKE_BRANCHES, with_provider_layers
from smidr_ci.errors import ConfigError


def layers(base: dict[str, str], **raw: Any) -> dict[str, tuple[str | None, ...]]:
    config = ProjectConfig.model_validate({"name": "a", "base": base, **raw})
    return {
        layer.name: (layer.branch, layer.tag, layer.commit)
        for layer in with_provider_layers(config).layers
    }


def branch(name: str) -> tuple[str | None, ...]:
    return name, None, None


def test_poky_is_one_repository_up_to_walnascar() -> None:
    for series in ("dunfell", "kirkstone", "scarthgap", "walnascar"):
        assert layers({"provider": "poky"}, yocto_series=series) == {"poky": branch(series)}


@pytest.mark.parametrize(("series", "bitbake"), [("whinlatter", "2.16"), ("master", "master")])
def test_poky_is_three_repositories_afterwards(series: str, bitbake: str) -> None:
    assert layers({"provider": "poky"}, yocto_series=series) == {
        "bitbake": branch(bitbake),
        "openembedded-core": branch(series),
        "meta-yocto": branch(series),
    }


@pytest.mark.parametrize("series", BITBAKE_BRANCHES)
def test_oe_core_comes_with_the_bitbake_of_its_release(series: str) -> None:
    assert layers({"provider": "oe-core"}, yocto_series=series) == {
        "bitbake": branch(BITBAKE_BRANCHES[series]),
        "openembedded-core": branch(series),
    }


def test_a_version_wins_over_the_series() -> None:
    assert layers({"provider": "poky", "version": "kirkstone"}, yocto_series="scarthgap") == {
        "poky": branch("kirkstone")
    }


def test_a_version_may_be_a_release_tag_or_a_branch_of_a_known_series() -> None:
    tagged = layers({"provider": "oe-core", "version": "yocto-5.0.3"})
    assert set(tagged.values()) == {(None, "yocto-5.0.3", None)}
    assert layers({"provider": "poky", "version": "a" * 40}) == {"poky": (None, None, "a" * 40)}
    mine = layers({"provider": "oe-core", "version": "scarthgap-next"}, yocto_series="scarthgap")
    assert mine == {"bitbake": branch("2.8"), "openembedded-core": branch("scarthgap-next")}


def test_bitbake_itself_brings_no_layers_and_mirrors_are_known() -> None:
    config = ProjectConfig.model_validate(
        {"name": "a", "base": {"provider": "oe-core"}, "yocto_series": "scarthgap"}
    )
    bitbake, core = with_provider_layers(config).layers
    assert (bitbake.layers, core.layers) == ((), None)
    assert all("github.com" in layer.mirrors[0] for layer in (bitbake, core))


@pytest.mark.parametrize(
    "own",
    [
        {"name": "poky", "git": "https://git.example.com/fork"},
        {"name": "core", "git": "https://git.example.com/mirror/poky.git"},
        {"name": "core", "git": "git@git.example.com:mirror/poky.git"},
        {"name": "core", "path": "../poky/"},
    ],
)
def test_a_layer_of_ones_own_takes_the_place_of_the_providers(own: dict[str, str]) -> None:
    added = layers({"provider": "poky"}, yocto_series="scarthgap", layers=[own])
    assert list(added) == [own["name"]]


def test_only_what_is_missing_is_added_in_front() -> None:
    own = {"name": "openembedded-core", "git": "https://git.example.com/oe-core", "branch": "mine"}
    added = layers({"provider": "oe-core"}, yocto_series="scarthgap", layers=[own])
    assert added == {"bitbake": branch("2.8"), "openembedded-core": branch("mine")}
    assert list(added) == ["bitbake", "openembedded-core"]


def test_without_a_provider_nothing_is_added() -> None:
    config = ProjectConfig(name="a")
    assert with_provider_layers(config) is config


def test_any_other_provider_must_be_the_name_of_a_layer() -> None:
    own = {"name": "vendor", "git": "https://git.example.com/vendor"}
    assert list(layers({"provider": "vendor"}, layers=[own])) == ["vendor"]
    with pytest.raises(ConfigError, match="nor the name of a layer") as caught:
        layers({"provider": "vendr"}, layers=[own])
    assert caught.value.hint == "Did you mean `vendor`?"


def test_a_provider_needs_to_know_the_release() -> None:
    with pytest.raises(ConfigError, match="needs a version"):
        layers({"provider": "poky"})
    with pytest.raises(ConfigError, match="which BitBake goes with my-branch is not known"):
        layers({"provider": "oe-core", "version": "my-branch"})
