"""What a stranger's build gets of a host, and what it can't do to it, with real BitBake."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.fakes.git_server import GitServer, serve
from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

SECRET = "operators-secret-7731"
_FILE_URL = re.compile(r'"file://[^"]*/([a-z-]+\.git)"')


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
    publish(hello_project, git_host)
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


def publish(project: HelloProject, server: GitServer) -> None:
    """Have the project take its layers from the server."""
    text = project.config.read_text()

    def url(match: re.Match[str]) -> str:
        served = server.root / match[1]
        if not served.exists():
            served.symlink_to(re.search(r'"file://([^"]*)"', match[0])[1])  # type: ignore[index]
        return f'"{server.url(match[1])}"'

    project.config.write_text(_FILE_URL.sub(url, text))


def republish(project: HelloProject, server: GitServer) -> None:
    """The same after the project's files have changed."""
    project.prepare()
    publish(project, server)


def shared_state(home: Path) -> dict[str, str]:
    """Everything below the directories that other builds use: path -> what it is."""
    places = ("downloads", "sstate-cache", "layers/trees", "parse-cache", "image-accounts")
    found = {}
    for place in places:
        for top, folders, files in os.walk(home / place):
            for name in (*folders, *files):
                path = Path(top, name)
                if name != "lease":  # which smidr itself takes
                    found[str(path.relative_to(home))] = described(path)
    return found


def described(path: Path) -> str:
    info = path.lstat()
    who = f"{stat.filemode(info.st_mode)} {info.st_uid} {info.st_nlink}"
    if stat.S_ISLNK(info.st_mode):
        return f"{who} {os.readlink(path)}"
    if stat.S_ISREG(info.st_mode):
        return f"{who} {info.st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return stat.filemode(info.st_mode)


def console(smidr: Smidr, record: dict[str, Any]) -> str:
    return (smidr.home / "builds" / record["build_id"] / "control" / "console.log").read_text()


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
