"""Values that belong together: conflicts, older names, targets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from smidr_ci.config.models import LayerEntry, ProjectConfig
from smidr_ci.errors import ConfigError, UsageError

URL = "https://example.com/x"


def config(**raw: Any) -> ProjectConfig:
    return ProjectConfig.model_validate({"name": "a", **raw})


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({}, "neither git nor path"),
        ({"git": URL, "path": "x"}, "both git and path"),
        ({"git": URL, "branch": "a", "tag": "b"}, "both tag and branch"),
        ({"git": URL, "tag": "b", "commit": "a" * 40}, "both tag and commit"),
        ({"path": "x", "branch": "a"}, "branch has no effect"),
        ({"path": "x", "commit": "a" * 40}, "commit has no effect"),
        ({"path": "x", "mirrors": [URL]}, "mirrors has no effect"),
    ],
)
def test_a_layer_comes_from_one_source_at_one_ref(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LayerEntry.model_validate({"name": "a", **layer})


def test_a_commit_may_stand_with_its_branch() -> None:
    layer = LayerEntry.model_validate(
        {"name": "a", "git": URL, "branch": "main", "commit": "a" * 40}
    )
    assert (layer.branch, layer.commit) == ("main", "a" * 40)


def test_an_empty_list_of_sub_folders_is_not_the_default() -> None:
    with_none = LayerEntry.model_validate({"name": "a", "git": URL, "layers": []})
    with_all = LayerEntry.model_validate({"name": "a", "git": URL})
    assert (with_none.layers, with_all.layers) == ((), None)


OLDER = [
    ("build", "sstate", "directories", "sstate", "a", "b"),
    ("build", "tmp", "directories", "tmp", "a", "b"),
    ("build", "deploy", "directories", "deploy", "a", "b"),
    ("build", "package_classes", "packages", "classes", ["rpm"], ["deb"]),
    ("build", "extra_image_features", "features", "extra_image_features", ["x"], ["y"]),
    ("build", "inherit_classes", "features", "inherit_classes", ["x"], ["y"]),
]


@pytest.mark.parametrize(("old_part", "old", "new_part", "new", "one", "two"), OLDER)
def test_two_names_of_a_setting_must_agree(
    old_part: str, old: str, new_part: str, new: str, one: Any, two: Any
) -> None:
    with pytest.raises(ValidationError, match="two names of one setting"):
        config(**{old_part: {old: one}, new_part: {new: two}})
    config(**{old_part: {old: one}, new_part: {new: one}})


def test_the_rest_of_the_program_need_not_know_the_older_names() -> None:
    older = config(
        build={
            "sstate": "s", "tmp": "t", "deploy": "d", "package_classes": ["deb"],
            "extra_image_features": ["x"], "inherit_classes": ["y"],
        }
    )  # fmt: skip
    newer = config(
        directories={"sstate": "s", "tmp": "t", "deploy": "d"},
        packages={"classes": ["deb"]},
        features={"extra_image_features": ["x"], "inherit_classes": ["y"]},
    )
    for each in (older, newer):
        assert each.resolved_directories == newer.directories
        assert each.package_classes == ("deb",)
        assert each.image_features == ("x",)
        assert each.inherit_classes == ("y",)


def test_the_builds_machine_wins_over_the_bases() -> None:
    assert config(base={"machine": "a"}).resolved_machine == "a"
    assert config(base={"machine": "a"}, build={"machine": "b"}).resolved_machine == "b"
    assert config().resolved_machine is None


def test_targets_come_from_the_command_line_or_from_the_config() -> None:
    project = config(build={"image": "a", "targets": ["b", "a", "c"]})
    assert project.all_targets == ("a", "b", "c")
    assert project.require_targets() == ("a", "b", "c")
    assert project.require_targets(("x", "y", "x")) == ("x", "y")


def test_nothing_to_build_is_a_fault_only_when_building() -> None:
    with pytest.raises(ConfigError, match="names nothing to build") as caught:
        config().require_targets()
    assert "build.image" in caught.value.hint


@pytest.mark.parametrize("target", ["-k", "--version", "", "a b"])
def test_a_target_of_the_command_line_can_not_be_an_option(target: str) -> None:
    with pytest.raises(UsageError, match="not a target"):
        config().require_targets((target,))


def test_a_base_image_that_would_not_be_used_is_refused() -> None:
    with pytest.raises(ValidationError, match="base_image is not used"):
        config(container={"base_image": "debian:12", "bootstrap": "always"})


@pytest.mark.parametrize(
    "limits", [{"memory": "255M"}, {"shm_size": 10}, {"cpu_count": 0.01}, {"pids": 1}]
)
def test_limits_that_no_build_survives_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(container=limits)


def test_a_config_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().name = "b"  # type: ignore[misc]  # that it fails is the point
