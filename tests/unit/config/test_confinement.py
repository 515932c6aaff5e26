"""Configs of strangers: no directory of the host outside their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.config.agent import AgentConfig
from smidr_ci.config.loader import LoadedProject, load_project_text
from smidr_ci.config.problems import ConfigProblemsError

CONFINED = AgentConfig(allow_config_directories=False)


def load(text: str, directory: Path, operator: AgentConfig | None = None) -> LoadedProject:
    return load_project_text(
        f"name: a\n{text}\n",
        "smidr.yaml",
        directory=directory,
        environ={"HOME": "/home/ada"},
        operator=operator,
    )


OUTSIDE = [
    "directories: {downloads: /etc}",
    "directories: {source: ..}",
    "directories: {sstate: ~/x}",
    "directories: {tmp: link/x}",
    "build: {deploy: ../x}",
    "layers: [{name: a, path: ../../etc}]",
    "layers: [{name: a, git: 'file:///srv/private.git'}]",
    "layers: [{name: a, git: 'https://example.com/x', mirrors: ['file:///srv/private.git']}]",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_confined_config_can_not_name_places_outside(tmp_path: Path, text: str) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(ConfigProblemsError, match="leads out of the project's directory") as caught:
        load(text, tmp_path, CONFINED)
    assert caught.value.where.startswith("smidr.yaml:2:")
    assert "allow_config_directories" in caught.value.hint


@pytest.mark.parametrize("text", OUTSIDE)
def test_the_operators_own_configs_may(tmp_path: Path, text: str) -> None:
    assert load(text, tmp_path).config.name == "a"


@pytest.mark.parametrize(
    "text",
    [
        "directories: {source: ., downloads: cache/dl}",
        "layers: [{name: a, path: meta-a}]",
        "build:",
    ],
)
def test_places_inside_are_always_allowed(tmp_path: Path, text: str) -> None:
    assert load(text, tmp_path, CONFINED).config.name == "a"
