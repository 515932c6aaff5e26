"""`smidr init`: starters that validate, with every commented example, and never overwrite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smidr_ci.config.loader import load_project, load_project_text
from smidr_ci.config.starters import STARTERS, write_starter
from smidr_ci.errors import HostError, UsageError


@pytest.mark.parametrize("starter", STARTERS)
def test_a_starter_is_a_valid_config_with_the_given_name(tmp_path: Path, starter: str) -> None:
    path = write_starter(tmp_path / "new" / "project", "gateway", starter)
    config = load_project(path, environ={}).config
    assert path == tmp_path / "new" / "project" / "smidr.yaml"
    assert config.name == "gateway"
    assert config.require_targets()


@pytest.mark.parametrize("name", ["yes", "1.10", "null", "0x10", "2024-01-31"])
def test_a_name_that_yaml_takes_for_something_else_stays_a_name(tmp_path: Path, name: str) -> None:
    assert load_project(write_starter(tmp_path, name, "poky"), environ={}).config.name == name


@pytest.mark.parametrize("starter", STARTERS)
def test_every_commented_example_is_valid_when_it_is_uncommented(
    tmp_path: Path, starter: str
) -> None:
    text = write_starter(tmp_path, "gateway", starter).read_text()
    uncommented = re.sub(r"^( *)#(?=\S| {2,})", r"\1", text, flags=re.MULTILINE)
    loaded = load_project_text(uncommented, "smidr.yaml", directory=tmp_path, environ={})
    assert starter == "hello" or uncommented != text
    assert loaded.config.name == "gateway"


@pytest.mark.parametrize("name", ["", "..", "a b", "ä", "a/b", '"\ninjected: x', "x" * 64, "-a"])
def test_a_name_that_does_not_fit_is_refused_with_a_proposal(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't be a project's name") as caught:
        write_starter(tmp_path, name, "poky")
    proposal = caught.value.hint.removesuffix(".").rsplit(" ", 1)[-1]
    assert write_starter(tmp_path, proposal, "poky").exists()


def test_an_existing_config_is_never_overwritten(tmp_path: Path) -> None:
    config = tmp_path / "smidr.yaml"
    config.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_starter(tmp_path, "a", "hello")
    assert config.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["smidr.yaml"]


def test_a_dangling_symlink_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "smidr.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is there already"):
        write_starter(tmp_path, "a", "poky")
    assert not (tmp_path / "elsewhere").exists()


def test_the_hello_starter_brings_its_layer_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_starter(tmp_path, "a", "hello")
    assert (tmp_path / "meta-hello" / "conf" / "layer.conf").is_file()
    assert (tmp_path / "meta-hello" / "recipes-hello" / "hello" / "hello_1.0.bb").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta-hello", "smidr.yaml"]


def test_a_layer_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "meta-hello").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        write_starter(tmp_path, "a", "hello")
    assert list((tmp_path / "meta-hello").iterdir()) == []
    assert not (tmp_path / "smidr.yaml").exists()


def test_an_unknown_starter_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_starter(tmp_path, "a", "../../etc/passwd")
    assert "poky, oe-core, hello" in caught.value.hint


def test_a_place_that_can_not_be_written_is_a_fault_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="can't write the starter"):
        write_starter(tmp_path / "file" / "x", "a", "poky")
