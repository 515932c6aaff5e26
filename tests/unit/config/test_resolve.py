"""`smidr config show`: the config as it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from smidr_ci.config.loader import LoadedProject, load_project_text
from smidr_ci.config.models import ProjectConfig
from smidr_ci.config.resolve import resolved_config, resolved_yaml
from tests.fakes.config_keys import Key, iter_keys


def load(text: str, **environ: str) -> LoadedProject:
    return load_project_text(text, "smidr.yaml", directory=Path("/x"), environ=environ)


def test_variables_older_names_and_the_providers_layers_are_resolved() -> None:
    loaded = load(
        """
name: a
yocto_series: scarthgap
base: {provider: poky, machine: one}
build: {machine: "${YOCTO_M}", sstate: cache, package_classes: [ipk], image: x}
""",
        YOCTO_M="two",
    )
    shown = yaml.safe_load(resolved_yaml(loaded))
    assert shown["base"]["machine"] == "two"
    assert shown["directories"] == {"sstate": "cache"}
    assert shown["packages"] == {"classes": ["ipk"]}
    assert [layer["name"] for layer in shown["layers"]] == ["poky"]
    assert not {"machine", "sstate", "package_classes"} & set(shown["build"])


@pytest.mark.parametrize("key", tuple(iter_keys()), ids=lambda key: key.name)
def test_what_is_shown_can_be_loaded_again_and_means_the_same(key: Key) -> None:
    raw = {**key.raw_with(), "yocto_series": "scarthgap"}
    loaded = load(yaml.safe_dump(raw))
    again = load(resolved_yaml(loaded))
    assert again.config == resolved_config(loaded.config)
    assert resolved_config(again.config) == again.config


def test_text_that_looks_like_something_else_survives() -> None:
    config = load('name: "1.10"\ndescription: "yes"\nlocal_conf: "A = \\"ü: #\\""\n')
    again = load(resolved_yaml(config)).config
    assert isinstance(again, ProjectConfig)
    assert (again.name, again.description, again.local_conf) == ("1.10", "yes", ('A = "ü: #"',))
