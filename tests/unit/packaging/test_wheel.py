"""The wheel holds all that the program needs, and the program runs from it alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def run(installed: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "SMIDR_HOME": str(directory / "home"),
        "PYTHONPATH": str(installed),
    }
    command = [sys.executable, "-P", "-m", "smidr_ci", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environ, capture_output=True, text=True, check=False
    )


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    package = ROOT / "smidr_ci"
    files = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert files - packed == set()
    assert {name.split("/")[0] for name in packed - files} == {
        name for name in os.listdir(installed) if name.endswith(".dist-info")
    }


@pytest.mark.parametrize("starter", ["poky", "oe-core", "hello"])
def test_a_starter_is_written_and_valid_without_the_source_tree(
    installed: Path, tmp_path: Path, starter: str
) -> None:
    made = run(installed, tmp_path, "init", "mine", "--starter", starter)
    assert made.returncode == 0, made.stderr
    checked = run(installed, tmp_path, "config", "check", "-c", "mine/smidr.yaml")
    assert checked.returncode == 0, checked.stderr


def test_the_history_is_made_without_the_source_tree(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "list")
    assert (listed.returncode, listed.stdout) == (0, "No builds yet.\n"), listed.stderr


def test_the_driver_is_found_without_the_source_tree(installed: Path, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from smidr_ci.bitbake.driver_files import install;"
        "place = pathlib.Path(sys.argv[1]); place.mkdir(); install(place);"
        "print(sorted(path.name for path in place.rglob('*.py')))"
    )
    command = [sys.executable, "-P", "-c", script, str(tmp_path / "control")]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("driver.py", "run.py", "shell.py", "launch.py", "smidr_ui.py"):
        assert name in done.stdout
