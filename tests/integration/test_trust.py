"""What a stranger's build gets of a host, and what it can't do to it, with real BitBake."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.fakes.git_server import GitServer, publish, serve
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

SECRET = "operators-secret-7731"
ATTACKS = Path(__file__).parents[1] / "data" / "trust"


@pytest.fixture
def git_host(tmp_path: Path) -> Iterator[GitServer]:
    """A git server for the project's layers: a stranger's build reads no repository of the host."""
    root = tmp_path / "served"
    root.mkdir()
    with serve(root) as server:
        yield server


@pytest.fixture
def smidr(
    tmp_path: Path, hello_project: HelloProject, git_host: GitServer, docker_client: APIClient
) -> Smidr:
    """The hello project, its layers on a git host; a home with secrets of the operator's."""
    assert docker_client.ping()
    publish(hello_project.config, git_host)
    home = tmp_path / "home"
    home.mkdir()
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    login = {"host": "git.other", "token_file": str(token)}
    write_settings(home, {"git": {"credentials": [login]}})
    environment = {
        "DEPLOY_PASSWORD": SECRET,
        "HTTP_PROXY": f"http://user:{SECRET}@127.0.0.1:1",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    return Smidr(home, hello_project.work, environment)


def write_settings(home: Path, more: dict[str, Any]) -> None:
    settings = {"environment": ["DEPLOY_PASSWORD"], **more}
    (home / "agent.yaml").write_text(json.dumps(settings))
    (home / "agent.yaml").chmod(0o600)


def shared_state(home: Path) -> dict[str, str]:
    """Everything below the directories that other builds use: path -> what it is.

    But for what smidr itself does with layers: leases, times, and links between equal files.
    """
    places = ("downloads", "sstate-cache", "layers/trees", "parse-cache", "image-accounts")
    found = {}
    for place in places:
        for top, folders, files in os.walk(home / place):
            for name in (*folders, *files):
                path = Path(top, name)
                if name not in {"lease", "times.json"}:
                    found[str(path.relative_to(home))] = described(path, "layers" not in place)
    return found


def described(path: Path, counts_links: bool = True) -> str:
    info = path.lstat()
    who = f"{stat.filemode(info.st_mode)} {info.st_uid} {info.st_nlink if counts_links else ''}"
    if stat.S_ISLNK(info.st_mode):
        return f"{who} {os.readlink(path)}"
    if stat.S_ISREG(info.st_mode):
        return f"{who} {info.st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return stat.filemode(info.st_mode)


def console(smidr: Smidr, record: dict[str, Any]) -> str:
    path = smidr.home / "builds" / str(record["build_id"]) / "control" / "console.log"
    return path.read_text()


def image_of(record: dict[str, Any]) -> dict[str, str]:
    return {item["path"]: item["sha256"] for item in record["artifacts"]}


def test_a_strangers_build_reuses_all_that_trusted_ones_made_and_leaves_nothing(
    smidr: Smidr,
) -> None:
    write_settings(smidr.home, {"environment": []})
    first = smidr.build()
    assert first["trust"] == "trusted"
    before = shared_state(smidr.home)

    record = smidr.build("--untrusted")
    assert record["trust"] == "untrusted"
    tasks, sstate = record["tasks"], record["sstate"]
    assert tasks["recipes_parsed"] == 0
    assert tasks["recipes_cached"] == tasks["recipes"] > 0
    assert sstate["mirrors"] == sstate["wanted"] > 0
    assert tasks["executed"] == 0
    assert image_of(record) == image_of(first)
    assert shared_state(smidr.home) == before
    left = smidr.home / "private-caches"
    assert [path for path in left.rglob("*") if ".deleting" not in str(path)] == []
    assert "untrusted" in smidr("status", record["build_id"]).out


def test_a_strangers_change_is_compared_with_what_trusted_builds_made(
    smidr: Smidr, hello_project: HelloProject, git_host: GitServer
) -> None:
    smidr.build()
    recipe = "meta-hello/recipes/greeter/greeter_1.0.bb"
    hello_project.edit(recipe, "do_install() {\n", "do_install() {\n    : another step\n")
    publish(hello_project.config, git_host)
    record = smidr.build("--untrusted")
    assert record["sstate"]["missed"] > 0
    (reason,) = record["rebuilt"]
    assert (reason["recipe"], reason["task"]) == ("greeter", "do_install")
    assert "another step" in reason["text"]
    # The next trusted build has that to do for itself.
    assert smidr.build()["sstate"]["missed"] == record["sstate"]["missed"]


def test_a_hostile_recipe_harms_nobody_and_sees_nothing(
    smidr: Smidr, hello_project: HelloProject, git_host: GitServer
) -> None:
    first = smidr.build("--keep")
    pinned = pin(hello_project, first)
    kept = snapshot(Path(first["workspace"]))
    control = snapshot(smidr.home / "builds" / first["build_id"])
    add_recipe(hello_project, git_host, "attack_1.0.bb", "attack.py")
    before = shared_state(smidr.home)

    record = smidr.build("--untrusted", "-t", "attack", "-t", "hello-image")
    told = console(smidr, record)
    attempts = dict(re.findall(r"^ATTEMPT (.*): (.*)$", told, re.MULTILINE))
    assert "ATTACK OVER" in told, told
    assert len(attempts) > 60
    assert {name: how for name, how in attempts.items() if how != "refused"} == {}
    assert "SEEN" not in told, told
    assert SECRET not in told

    after = shared_state(smidr.home)
    assert {path: after.get(path) for path in before} == before
    added = {path for path in after if path not in before}
    assert all(path.startswith("layers/trees/") for path in added), added
    assert snapshot(Path(first["workspace"])) == kept
    assert snapshot(smidr.home / "builds" / first["build_id"]) == control

    # What the stranger left in the place of this object is nobody's.
    lost = next((smidr.home / "sstate-cache").rglob("sstate:hello:*.tgz"))
    lost.unlink()
    last = smidr.build("-c", str(pinned))
    assert image_of(last) == image_of(first)
    assert last["sstate"]["missed"] == 1
    assert last["sstate"]["local"] == last["sstate"]["wanted"] - 1
    assert last["tasks"]["recipes_parsed"] == 0
    assert "POISONED" not in console(smidr, last)


def test_what_a_stranger_says_of_a_shared_object_takes_it_from_nobody(
    smidr: Smidr, hello_project: HelloProject, git_host: GitServer
) -> None:
    smidr.build()
    add_recipe(hello_project, git_host, "liar_1.0.bb")
    before = shared_state(smidr.home)
    answer = smidr("build", "--json", "--untrusted", "-t", "liar", "-t", "hello")
    assert answer.code == 1
    assert answer.json["findings"][0]["category"] == "sstate", answer.json["findings"]
    after = shared_state(smidr.home)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("line", ['SSTATE_DIR = "{}/sstate"', 'DL_DIR = "{}/downloads"'])
def test_a_config_that_names_the_shared_caches_can_not_write_there_either(
    smidr: Smidr, line: str
) -> None:
    smidr.build()
    before = shared_state(smidr.home)
    config = smidr.directory / "smidr.yaml"
    line = line.format("/smidr/shared")
    config.write_text(f"{config.read_text()}\nlocal_conf: ['{line}']\n")
    smidr("build", "--untrusted", "--clean")
    after = shared_state(smidr.home)
    assert {path: after.get(path) for path in before} == before


def add_recipe(project: HelloProject, server: GitServer, name: str, *files: str) -> None:
    """Put a hostile recipe into the layer."""
    folder = project.layer / "recipes" / name.partition("_")[0]
    (folder / "files").mkdir(parents=True)
    shutil.copy(ATTACKS / name, folder)
    for file in files:
        shutil.copy(ATTACKS / file, folder / "files")
    project.prepare()
    publish(project.config, server)


def pin(project: HelloProject, record: dict[str, Any]) -> Path:
    """A config that builds the layer as this build had it."""
    text = project.config.read_text()
    commit = record["layer_commits"]["meta-hello"]
    pinned = project.config.with_name("pinned.yaml")
    pinned.write_text(re.sub(r"branch: main$", f"commit: {commit}", text, flags=re.MULTILINE))
    return pinned


def snapshot(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): described(path) for path in root.rglob("*")}
