"""What is put into the control directory, and with which Python it can run."""

from __future__ import annotations

import ast
import os
import stat
import sys
from pathlib import Path

import pytest

import smidr_ci.bitbake.inside
from smidr_ci.bitbake.driver_files import driver_command, install
from smidr_ci.errors import HostError

INSIDE = Path(smidr_ci.bitbake.inside.__file__).parent
SOURCES = sorted(INSIDE.rglob("*.py"))
RELEASES_OWN = {"bb", "smidr_inside"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_is_written_in_the_syntax_of_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_it_needs_nothing_but_the_standard_library(source: Path) -> None:
    tree = ast.parse(source.read_text())
    named = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    named += [
        node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0
    ]
    roots = {name.partition(".")[0] for name in named}
    assert roots <= sys.stdlib_module_names | RELEASES_OWN


def test_the_command_names_the_installed_driver(tmp_path: Path) -> None:
    install(tmp_path)
    path = Path(driver_command()[-1])
    assert (tmp_path / path.relative_to("/smidr/control")).is_file()
    assert (tmp_path / "driver/smidr_inside/ui/smidr_ui.py").is_file()


def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        install(tmp_path)
    finally:
        os.umask(before)
    for path in (tmp_path / "driver", *(tmp_path / "driver").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_it_replaces_what_was_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "driver" / "planted.py").touch()
    (tmp_path / "driver" / "driver.py").write_text("evil")
    install(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["driver"]
    assert not (tmp_path / "driver" / "planted.py").exists()
    assert "evil" not in (tmp_path / "driver" / "driver.py").read_text()


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    control = tmp_path / "control"
    control.mkdir()
    (control / "driver").symlink_to(outside)
    install(control)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    (control / "driver" / "smidr_inside").rename(control / "driver" / "aside")
    (control / "driver" / "smidr_inside").symlink_to(outside)
    install(control)
    assert [path.name for path in outside.iterdir()] == ["precious"]


def test_a_directory_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="driver"):
        install(tmp_path / "missing")
