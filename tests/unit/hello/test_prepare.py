"""`examples/hello/prepare.py`: the same files give the same repositories, anywhere, any time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smidr_ci.config.loader import load_project
from tests.fakes.hello import EXAMPLE, HelloProject

BITBAKE = "https://git.example/bitbake.git@2.8"


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def prepare(
    project: HelloProject, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project.root / "prepare.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.fixture
def project(tmp_path: Path) -> HelloProject:
    root = tmp_path / "hello"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("work", "__pycache__"))
    project = HelloProject(root, BITBAKE)
    project.prepare()
    return project


def test_recipe_pins_the_commit_that_the_sources_make(project: HelloProject) -> None:
    commit = git(project.work / "sources" / "greeter.git", "rev-parse", "main")
    recipe = (project.layer / "recipes" / "greeter" / "greeter_1.0.bb").read_text()
    assert f'SRCREV = "{commit}"' in recipe


def test_commits_do_not_depend_on_user_time_or_umask(project: HelloProject, tmp_path: Path) -> None:
    other = {
        "GIT_AUTHOR_NAME": "X",
        "GIT_COMMITTER_DATE": "2030-01-01T00:00:00",
        "TZ": "Asia/Tokyo",
    }
    work = tmp_path / "other"
    old = os.umask(0o077)
    try:
        run = prepare(project, "--work", str(work), "--bitbake", BITBAKE, **other)
    finally:
        os.umask(old)
    assert run.returncode == 0, run.stderr
    for name in ("sources/greeter.git", "meta-hello.git"):
        assert git(work / name, "rev-parse", "main") == git(
            project.work / name, "rev-parse", "main"
        )


def test_second_run_changes_nothing(project: HelloProject) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.work.rglob("*")}
    project.prepare()
    assert {path: path.stat().st_mtime_ns for path in project.work.rglob("*")} == before


def test_changed_layer_becomes_a_new_commit(project: HelloProject) -> None:
    before = git(project.layer_repository, "rev-parse", "main")
    project.edit("meta-hello/conf/distro/hello.conf", '"1.0"', '"1.1"')
    after = git(project.layer_repository, "rev-parse", "main")
    assert after != before
    assert git(project.layer_repository, "diff", "--name-only", before, after) == (
        "conf/distro/hello.conf"
    )


def test_same_files_give_the_same_commit_after_a_change_and_back(project: HelloProject) -> None:
    before = git(project.layer_repository, "rev-parse", "main")
    project.edit("meta-hello/conf/distro/hello.conf", '"1.0"', '"1.1"')
    project.edit("meta-hello/conf/distro/hello.conf", '"1.1"', '"1.0"')
    assert git(project.layer_repository, "rev-parse", "main") == before


def test_deleted_file_leaves_the_layer(project: HelloProject) -> None:
    (project.layer / "recipes" / "motd" / "motd_1.0.bb").unlink()
    project.prepare()
    assert "motd" not in git(project.layer_repository, "ls-tree", "-r", "--name-only", "main")


def test_changed_sources_say_which_commit_to_pin(project: HelloProject) -> None:
    source = project.root / "sources" / "greeter" / "greet.c"
    source.write_text(source.read_text().replace("Hello", "Goodbye"))
    said = prepare(project, "--bitbake", BITBAKE).stdout
    commit = git(project.work / "sources" / "greeter.git", "rev-parse", "main")
    assert f'set SRCREV = "{commit}" in meta-hello/recipes/greeter/greeter_1.0.bb' in said


def test_made_config_takes_every_layer_from_git(project: HelloProject) -> None:
    config = load_project(project.config, environ={}).config
    assert [(layer.name, layer.git, layer.branch) for layer in config.layers] == [
        ("bitbake", "https://git.example/bitbake.git", "2.8"),
        ("meta-hello", project.layer_repository.as_uri(), "main"),
    ]


def test_environment_file_leads_the_plain_config_to_the_same_bitbake(
    project: HelloProject,
) -> None:
    lines = (project.work / "env").read_text().splitlines()
    environ = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    config = load_project(project.root / "smidr.yaml", environ=environ).config
    assert (config.layers[0].git, config.layers[0].branch) == (
        "https://git.example/bitbake.git",
        "2.8",
    )


def test_given_bitbake_is_taken_from_the_environment(project: HelloProject) -> None:
    chosen = {"SMIDR_HELLO_BITBAKE": "file:///srv/bitbake.git", "SMIDR_HELLO_BITBAKE_BRANCH": "2.0"}
    said = prepare(project, **chosen).stdout
    assert "BitBake: file:///srv/bitbake.git, branch 2.0" in said


def test_wrong_choice_of_bitbake_says_what_to_write(project: HelloProject) -> None:
    run = prepare(project, "--bitbake", "2.8")
    assert run.returncode == 1
    assert "write auto, upstream, wheel or URL@BRANCH" in run.stderr
